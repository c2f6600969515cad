//! The samples, the table and the plots of a soak.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::{self, Use};
use crate::run::{After, Limits};

/// One moment of a soak.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    seconds: f64,
    used: Use,
    open: i64,
    connections: u64,
    messages: u64,
    latency_us: [f64; 3],
}

/// The maximum number of samples: a longer run has longer intervals.
const MOST: usize = 4096;

/// Starts the thread that samples twice a second.
pub fn sample(started: Instant) -> (Arc<AtomicBool>, JoinHandle<Vec<Sample>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    // Allocated at once, so that the list is not memory that grows.
    let mut samples = Vec::with_capacity(MOST);
    let thread = std::thread::spawn(move || {
        let mut interval = 1;
        for tick in 1.. {
            std::thread::sleep(Duration::from_millis(500));
            if stopped.load(Relaxed) {
                break;
            }
            if tick % interval != 0 {
                continue;
            }
            if samples.len() == MOST {
                let mut at = 0;
                samples.retain(|_| {
                    at += 1;
                    at % 2 == 0
                });
                interval *= 2;
            }
            let Some(used) = machine::used() else { continue };
            samples.push(Sample {
                seconds: started.elapsed().as_secs_f64(),
                used,
                open: machine::OPEN.load(Relaxed),
                connections: machine::CONNECTIONS.load(Relaxed),
                messages: machine::MESSAGES.load(Relaxed),
                latency_us: machine::LATENCIES.take(),
            });
        }
        samples
    });
    (stop, thread)
}

pub struct Result<'a> {
    pub limits: &'a Limits,
    pub took: Duration,
    pub rounds: usize,
    pub connections: u64,
    pub messages: u64,
    pub totals: &'a BTreeMap<&'static str, u64>,
    pub cells: &'a BTreeMap<String, u64>,
    pub afters: &'a [After],
    pub samples: &'a [Sample],
    pub failure: Option<&'a str>,
}

impl Result<'_> {
    /// One line for the gate.
    pub fn summary(&self) -> String {
        let of = |name| self.totals.get(name).copied().unwrap_or(0);
        let last = self.afters.last().map(|a| a.used).unwrap_or_default();
        format!(
            "soak: {} rounds, {} connections, {} messages, {} resets, {} messages dropped and \
             counted, {} drained, {} descriptors and {} threads after each round, {} MiB, {:.0} s, \
             seed {}",
            self.rounds,
            self.connections,
            self.messages,
            of("resets"),
            of("dropped_messages"),
            of("drained_in_order") + of("drained_by_reset"),
            last.descriptors,
            last.threads,
            last.rss >> 20,
            self.took.as_secs_f64(),
            self.limits.seed,
        )
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut text = format!("# Soak\n\n{}\n\n", self.summary());
        let _ = match self.failure {
            Some(failure) => writeln!(text, "**Failed**\n\n```\n{failure}\n```\n"),
            None => writeln!(text, "All counts were equal after each round.\n"),
        };
        text +=
            "| after round | connections | blocks | bytes | resident | descriptors | threads |\n";
        text += "|---|---|---|---|---|---|---|\n";
        let step = (self.afters.len() / 20).max(1);
        let last = self.afters.len().saturating_sub(1);
        for (n, After { used, connections }) in self.afters.iter().enumerate() {
            if n % step == 0 || n == last {
                let Use { rss, blocks, bytes, descriptors, threads } = used;
                let _ = writeln!(
                    text,
                    "| {n} | {connections} | {blocks} | {bytes} | {rss} | {descriptors} | {threads} |"
                );
            }
        }
        text += "\n| counted | number |\n|---|---|\n";
        for (name, n) in self.totals {
            let _ = writeln!(text, "| {} | {n} |", name.replace('_', " "));
        }
        text += "\n| rounds of | number |\n|---|---|\n";
        for (name, n) in self.cells {
            let _ = writeln!(text, "| {name} | {n} |");
        }
        text += "\n![memory](memory.svg)\n![descriptors and threads](descriptors.svg)\n";
        text += "![connections](connections.svg)\n![latency](latency.svg)\n";
        std::fs::write(folder.join("report.md"), text)?;
        let mut csv = "seconds,rss,blocks,bytes,descriptors,threads,open,connections,messages,\
                       p50_us,p99_us,p999_us\n"
            .to_owned();
        for s in self.samples {
            let Use { rss, blocks, bytes, descriptors, threads } = s.used;
            let [p50, p99, p999] = s.latency_us;
            let _ = writeln!(
                csv,
                "{:.1},{rss},{blocks},{bytes},{descriptors},{threads},{},{},{},{p50},{p99},{p999}",
                s.seconds, s.open, s.connections, s.messages
            );
        }
        std::fs::write(folder.join("samples.csv"), csv)?;
        let plots: [(&str, &str, &[Series]); 4] = [
            (
                "memory",
                "MiB",
                &[
                    ("resident", |s| s.used.rss as f64 / 1048576.0),
                    ("allocated", |s| s.used.bytes as f64 / 1048576.0),
                ],
            ),
            (
                "descriptors",
                "number",
                &[
                    ("descriptors", |s| s.used.descriptors as f64),
                    ("threads", |s| s.used.threads as f64),
                ],
            ),
            (
                "connections",
                "number",
                &[
                    ("open peers", |s| s.open as f64),
                    ("thousands made", |s| s.connections as f64 / 1e3),
                    ("millions of messages", |s| s.messages as f64 / 1e6),
                ],
            ),
            (
                "latency",
                "µs",
                &[
                    ("p50", |s| s.latency_us[0]),
                    ("p99", |s| s.latency_us[1]),
                    ("p99.9", |s| s.latency_us[2]),
                ],
            ),
        ];
        for (name, unit, series) in plots {
            std::fs::write(folder.join(format!("{name}.svg")), self.plot(name, unit, series))?;
        }
        Ok(())
    }

    /// Lines over time, with a logarithmic axis for latencies.
    fn plot(&self, title: &str, unit: &str, series: &[Series]) -> String {
        const COLORS: [&str; 3] = ["#1f77b4", "#d62728", "#2ca02c"];
        const SIZE: (f64, f64) = (900.0, 300.0);
        let log = unit == "µs";
        let scale = |y: f64| if log { y.max(1.0).log10() } else { y };
        let end = self.samples.last().map_or(1.0, |s| s.seconds);
        let values = || self.samples.iter().flat_map(|s| series.iter().map(|(_, of)| of(s)));
        let top = scale(values().fold(1.0, f64::max)) * 1.05;
        let (left, bottom) = (80.0, SIZE.1 - 30.0);
        let x = |seconds: f64| left + seconds / end * (SIZE.0 - left - 10.0);
        let y = |value: f64| bottom - scale(value) / top * (bottom - 30.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"16\">{title} ({unit})</text>\n",
            SIZE.0, SIZE.1
        );
        for quarter in 0..=4 {
            let share = f64::from(quarter) / 4.0;
            let value = if log { 10_f64.powf(top * share) } else { top * share };
            let (at, seconds) = (y(value), end * share);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"4\" y=\"{at:.1}\">{value:.1}</text>\
                 <text x=\"{:.1}\" y=\"{}\">{seconds:.0} s</text>",
                SIZE.0 - 10.0,
                x(seconds) - 20.0,
                SIZE.1 - 8.0
            );
        }
        for (n, (name, of)) in series.iter().enumerate() {
            let color = COLORS[n % COLORS.len()];
            let points: String = self
                .samples
                .iter()
                // An interval without a measurement has no latency.
                .filter(|s| !log || of(s) > 0.0)
                .map(|s| format!("{:.1},{:.1} ", x(s.seconds), y(of(s))))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{color}\" points=\"{points}\"/>\
                 <text x=\"{}\" y=\"16\" fill=\"{color}\">{name}</text>",
                300 + 150 * n
            );
        }
        svg + "</svg>\n"
    }
}

type Series = (&'static str, fn(&Sample) -> f64);
