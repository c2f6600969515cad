//! The options of a soak, its rounds, and the checks of memory, descriptors and threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::ledgers::{Count, Ledgers, Random};
use crate::machine::{self, Use};
use crate::report;
use crate::round::{Mode, Plan, Site};
use crate::support::{Api, CApi, RustApi, TempDir};

#[global_allocator]
static MEMORY: machine::Counting = machine::Counting;

/// The limits of a run.
pub struct Limits {
    pub seed: u64,
    pub connections: u64,
    pub messages: u64,
    pub seconds: u64,
    pub report: Option<PathBuf>,
}

const USAGE: &str = "soak [--seed N] [--connections N] [--messages N] [--seconds N] [--report DIR]";

fn limits(words: &[String]) -> Result<Limits, String> {
    let mut limits = Limits {
        seed: 1,
        connections: 1_000_000,
        messages: 100_000_000,
        seconds: 4 * 3600,
        report: None,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(USAGE.to_owned()) };
        if name == "--report" {
            limits.report = Some(value.into());
            continue;
        }
        let number = value.parse().map_err(|_| format!("{name}: {value} is not a number"))?;
        match name.as_str() {
            "--seed" => limits.seed = number,
            "--connections" => limits.connections = number,
            "--messages" => limits.messages = number,
            "--seconds" => limits.seconds = number,
            _ => return Err(format!("unknown option {name}\n{USAGE}")),
        }
    }
    Ok(limits)
}

/// More than the entries of all connection tables of this process.
const PLACES: usize = 1 << 20;
/// The rounds before memory must be flat.
const WARM_UP: usize = 12;
/// The longest round.
const ROUND: Duration = Duration::from_secs(180);

/// The state of the process after a round.
#[derive(Debug, Clone, Copy)]
pub struct After {
    pub used: Use,
    pub connections: u64,
}

pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some(("peer", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        crate::scripts::child(rest);
        return ExitCode::SUCCESS;
    }
    match limits(&words).and_then(|limits| run(&limits)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("soak: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(limits: &Limits) -> Result<(), String> {
    machine::limit_arenas();
    machine::limit_descriptors(None);
    let ledgers: &'static Ledgers = Box::leak(Box::new(Ledgers::new()));
    let places: Vec<AtomicU8> = std::iter::repeat_with(|| AtomicU8::new(0)).take(PLACES).collect();
    let places: &'static [AtomicU8] = Box::leak(places.into());
    let started = Instant::now();
    let watched: &'static Watched = Box::leak(Box::default());
    std::thread::spawn(move || watched.watch());
    let (stop, samples) = report::sample(started);

    let mut totals = BTreeMap::new();
    let mut cells = BTreeMap::<String, u64>::new();
    let mut afters: Vec<After> = Vec::new();
    let mut site = Site { ledgers, places, dir: TempDir::new(), from: [127, 0, 0, 0] };
    std::thread::sleep(Duration::from_millis(20));
    let start = machine::used().ok_or("no /proc")?;
    let (mut connections, mut messages) = (0, 0);
    let mut failure = None;
    for number in 0.. {
        let late = started.elapsed().as_secs() >= limits.seconds;
        if late || (connections >= limits.connections && messages >= limits.messages) {
            break;
        }
        // The goal of which less is done.
        let done = [(connections, limits.connections), (messages, limits.messages)]
            .map(|(n, goal)| n as f64 / goal.max(1) as f64);
        let heavy = number % 3 == 2 && done[1] < 1.0 && done[1] <= done[0] * 1.5 || done[0] >= 1.0;
        let plan = Plan::new(limits.seed, number, heavy, 1);
        let text = format!("--seed {}, round {number}: {plan:?}", limits.seed);
        watched.begin(&text);
        // Ports of an address in TIME_WAIT are used again after minutes.
        site.from = [127, 10 + (number % 30) as u8, (number / 30 % 250) as u8, 0];
        let mut random = Random(plan.seed);
        match plan.c_api {
            true => one::<CApi>(&plan, &site, &mut random),
            false => one::<RustApi>(&plan, &site, &mut random),
        }
        watched.end();
        let of = |count| ledgers.get(count);
        let datagrams = 2 * of(Count::datagrams);
        connections += of(Count::dialed) + of(Count::outgoing_opens);
        messages += of(Count::up_got) + of(Count::down_got) + of(Count::pushes_got) + datagrams / 2;
        let used = settle(&start);
        let [before, now] = [&start, &used].map(|u| (u.descriptors as u64, u.threads as u64));
        ledgers.equal("descriptors after the round and at the start", now.0, before.0);
        ledgers.equal("threads after the round and at the start", now.1, before.1);
        *cells.entry(plan.cell()).or_default() += 1;
        afters.push(After { used, connections });
        let wrong = ledgers.finish(&mut totals);
        if !wrong.is_empty() {
            failure = Some(format!("{text}\n{}", wrong.join("\n")));
            break;
        }
    }
    stop.store(true, Relaxed);
    let samples = samples.join().unwrap();
    let failure = failure.or_else(|| growth(&afters).err());
    let result = report::Result {
        limits,
        took: started.elapsed(),
        rounds: afters.len(),
        connections,
        messages,
        totals: &totals,
        cells: &cells,
        afters: &afters,
        samples: &samples,
        failure: failure.as_deref(),
    };
    println!("{}", result.summary());
    if let Some(folder) = &limits.report {
        result.write(folder).map_err(|e| format!("report in {}: {e}", folder.display()))?;
    }
    failure.map_or(Ok(()), Err)
}

fn one<A: Api>(plan: &Plan, site: &Site, random: &mut Random) {
    match plan.mode {
        Mode::Events => crate::events::run::<A>(plan, site, random),
        Mode::Threads | Mode::Pool => crate::threads::run::<A>(plan, site, random),
        Mode::Datagrams => crate::datagrams::run::<A>(plan, site, random),
    }
}

/// Waits until the threads of the round have exited: the kernel removes them after they were
/// joined, and the background closer ends by itself.
fn settle(start: &Use) -> Use {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let used = machine::used().unwrap_or_default();
        let same = (start.descriptors, start.threads) == (used.descriptors, used.threads);
        if same || Instant::now() > until {
            return used;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The slope of `y` over the connections: units for each connection.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (mx, my) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (xy, xx) = points.iter().fold((0.0, 0.0), |(xy, xx), p| {
        (xy + (p.0 - mx) * (p.1 - my), xx + (p.0 - mx) * (p.0 - mx))
    });
    if xx > 0.0 { xy / xx } else { 0.0 }
}

/// The permitted growth of memory after the warm-up: caches of the process that fill slowly.
const BLOCKS: f64 = 300.0;
const BYTES: f64 = 256.0 * 1024.0;
const RSS: f64 = 24.0 * 1024.0 * 1024.0;

fn growth(afters: &[After]) -> Result<(), String> {
    let Some(flat) = afters.get(WARM_UP..).filter(|flat| flat.len() >= 8) else {
        return Ok(());
    };
    let span = (flat[flat.len() - 1].connections - flat[0].connections) as f64;
    let grown = |what: fn(&Use) -> i64| {
        let points: Vec<_> =
            flat.iter().map(|a| (a.connections as f64, what(&a.used) as f64)).collect();
        slope(&points) * span
    };
    let checks: [(&str, f64, f64); 3] = [
        ("blocks", grown(|u| u.blocks), BLOCKS),
        ("allocated bytes", grown(|u| u.bytes), BYTES),
        ("resident bytes", grown(|u| u.rss), RSS),
    ];
    for (what, grown, most) in checks {
        if grown > most {
            return Err(format!(
                "memory grows: {grown:.0} {what} in {span:.0} connections after the warm-up"
            ));
        }
    }
    Ok(())
}

/// Ends the process if a round hangs.
#[derive(Default)]
struct Watched {
    since: AtomicU64,
    running: AtomicBool,
    text: std::sync::Mutex<String>,
}

impl Watched {
    fn now() -> u64 {
        std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs())
    }

    fn begin(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
        self.since.store(Watched::now(), Relaxed);
        self.running.store(true, Relaxed);
    }

    fn end(&self) {
        self.running.store(false, Relaxed);
    }

    fn watch(&self) {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let hangs = Watched::now().saturating_sub(self.since.load(Relaxed)) > ROUND.as_secs();
            if self.running.load(Relaxed) && hangs {
                eprintln!("soak: a round hangs: {}", self.text.lock().unwrap());
                std::process::exit(1);
            }
        }
    }
}
