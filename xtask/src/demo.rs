//! `cargo xtask demo`: shows the main use of keepsock on this machine.
//!
//! A server in C pushes lines to clients that only listen: two in C, one in Rust, and one program
//! that does not use keepsock. All connections are on loopback. The demo takes seconds.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::abi_check;
use crate::run::{self, MINUTE, Reader, Workspace, capture, create_dir, show};
use crate::sockets::{self, Connection};
use crate::tools::{self, on_path};

/// On loopback each step takes milliseconds; a busy machine may need longer.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

pub fn demo(ws: &Workspace) -> Result<bool, String> {
    let programs = Programs::build(ws)?;

    heading("A push server, written in C");
    let mut server = Server::start(ws, &programs.server)?;
    println!("$ push_server          listens on {}, a port that the kernel chose", server.endpoint);

    heading("Four clients connect. They only listen from now on");
    let at = server.endpoint.as_str();
    let mut clients = vec![
        Client::start("C client 1", ws.command(&programs.client).arg(at))?,
        Client::start("C client 2", ws.command(&programs.client).arg(at))?,
        Client::start("Rust client", ws.command(&programs.listen).arg(at))?,
        foreign_client(ws, at)?,
    ];
    expect_all(&clients, "welcome")?;
    print_connections(&clients, server.address);
    for line in clients[2].output.text().lines().take(2) {
        println!("the Rust client prints what the library reports:  {line}");
    }

    heading("The server broadcasts a message that no client has requested");
    server.push(&clients, "the tea is ready")?;

    heading("C client 2 is killed by SIGKILL");
    vanish(&mut clients, 1, &server)?;
    server.push(&clients, "and so is the cake")?;

    heading("The server drains its connections and ends");
    server.drain()?;
    for client in &mut clients {
        client.expect_end()?;
    }
    println!("\nEvery step succeeded.");
    Ok(true)
}

fn heading(text: &str) {
    println!("\n--- {text}");
}

struct Programs {
    server: PathBuf,
    client: PathBuf,
    listen: PathBuf,
}

impl Programs {
    fn build(ws: &Workspace) -> Result<Self, String> {
        println!("Building the library, two C programs and one Rust program");
        let library = abi_check::build(ws)?;
        let mut example = ws.cargo(&["build", "--example", "listen"]);
        show(example.env("CARGO_TARGET_DIR", &ws.target), 10 * MINUTE)?;
        let folder = ws.target.join("demo");
        create_dir(&folder)?;
        let compile = |name: &str| {
            let mut compile = ws.command(tools::c_compiler()?);
            compile.args(["-O2", "-pthread", "-o"]).arg(folder.join(name));
            compile.arg(ws.root.join("c_examples").join(name).with_extension("c"));
            abi_check::link(ws, &library, &mut compile)?;
            capture(&mut compile, 2 * MINUTE)?;
            Ok::<PathBuf, String>(folder.join(name))
        };
        Ok(Self {
            server: compile("push_server")?,
            client: compile("push_client")?,
            listen: ws.target.join("debug").join("examples").join("listen"),
        })
    }
}

/// A program of the demo. It is killed when the demo ends.
struct Running {
    child: Child,
    name: String,
}

impl Running {
    fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("start {name}: {e}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    fn output(&mut self) -> Result<(Reader, Reader), String> {
        match (self.child.stdout.take(), self.child.stderr.take()) {
            (Some(out), Some(err)) => Ok((Reader::start(out, false), Reader::start(err, false))),
            _ => Err(format!("{} has no output", self.name)),
        }
    }

    fn expect_end(&mut self) -> Result<(), String> {
        // Some programs end only after the end of their input.
        self.child.stdin = None;
        match run::wait(&mut self.child, STEP_TIMEOUT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{} ended with {status}", self.name)),
            None => Err(format!("{} does not end", self.name)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // This has no effect on a program that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Server {
    running: Running,
    input: Option<ChildStdin>,
    output: Reader,
    complaints: Reader,
    endpoint: String,
    address: SocketAddr,
}

impl Server {
    fn start(ws: &Workspace, program: &Path) -> Result<Self, String> {
        let mut running = Running::start("push_server", &mut ws.command(program))?;
        let (output, complaints) = running.output()?;
        let input = running.child.stdin.take();
        let endpoint =
            run::wait_for(STEP_TIMEOUT, || output.text().lines().next().map(str::to_owned))
                .ok_or_else(|| format!("push_server prints no endpoint: {}", complaints.text()))?;
        let address =
            endpoint.parse().map_err(|e| format!("push_server's endpoint {endpoint}: {e}"))?;
        Ok(Self { running, input, output, complaints, endpoint, address })
    }

    /// Has the server push a line, and sees it arrive at every client that is left.
    fn push(&mut self, clients: &[Client], line: &str) -> Result<(), String> {
        let before = self.output.text().lines().count();
        let input = self.input.as_mut().ok_or("push_server's input is closed")?;
        let started = Instant::now();
        writeln!(input, "{line}").map_err(|e| format!("push_server's input: {e}"))?;
        expect_all(clients, line)?;
        let time = started.elapsed();
        for client in clients {
            println!("{:<12} got \"{line}\"", client.running.name);
        }
        let report = run::wait_for(STEP_TIMEOUT, || {
            self.output.text().lines().nth(before).map(str::to_owned)
        })
        .ok_or("push_server reports nothing")?;
        println!("the server reports: {report}   (all arrived within {} ms)", milliseconds(time));
        let expected = format!("sent to {},", clients.len());
        if report.starts_with(&expected) {
            Ok(())
        } else {
            Err(format!("expected \"{expected} ...\", the server reports \"{report}\""))
        }
    }

    /// The end of its input is what push_server takes as the sign to end.
    fn drain(&mut self) -> Result<(), String> {
        self.input = None;
        self.running.expect_end()?;
        let output = self.output.text();
        let report = output.lines().last().unwrap_or("");
        println!("the server reports: {report}");
        let complaints = self.complaints.text();
        for line in complaints.lines() {
            println!("the server prints:   {line}");
        }
        if report.starts_with("drained") && report.ends_with(" 0 reset") {
            Ok(())
        } else {
            Err("the server did not drain cleanly".to_owned())
        }
    }
}

struct Client {
    running: Running,
    output: Reader,
    complaints: Reader,
}

impl Client {
    fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        let mut running = Running::start(name, command)?;
        let (output, complaints) = running.output()?;
        Ok(Self { running, output, complaints })
    }

    fn expect_end(&mut self) -> Result<(), String> {
        self.running.expect_end()?;
        println!(
            "{:<12} received the end of the stream and ended without an error",
            self.running.name
        );
        Ok(())
    }
}

/// A client that was not made for keepsock: whichever of these the machine has.
fn foreign_client(ws: &Workspace, endpoint: &str) -> Result<Client, String> {
    const PYTHON: &str = "import socket, sys\n\
        host, port = sys.argv[1].rsplit(':', 1)\n\
        for line in socket.create_connection((host, port)).makefile():\n    \
        print(line, end='', flush=True)\n";
    let (host, port) = endpoint.rsplit_once(':').ok_or("the endpoint has no port")?;
    if let Some(socat) = on_path("socat") {
        let address = format!("TCP:{endpoint}");
        return Client::start("socat", ws.command(socat).args(["-u", &address, "-"]));
    }
    if let Some(python) = on_path("python3") {
        return Client::start("Python", ws.command(python).args(["-c", PYTHON, endpoint]));
    }
    // nc keeps its end open after the server has closed, so the drain takes longer.
    if let Some(nc) = on_path("nc") {
        return Client::start("nc", ws.command(nc).args([host, port]));
    }
    let bash = on_path("bash").ok_or("the fourth client needs socat, python3, nc or bash")?;
    let script = format!("exec cat </dev/tcp/{host}/{port}");
    Client::start("bash", ws.command(bash).args(["-c", &script]))
}

fn expect_all(clients: &[Client], line: &str) -> Result<(), String> {
    for client in clients {
        let has_it = || client.output.text().lines().any(|l| l == line).then_some(());
        run::wait_for(STEP_TIMEOUT, has_it).ok_or_else(|| {
            let said = client.complaints.text();
            format!("{} did not receive \"{line}\": {said}", client.running.name)
        })?;
    }
    Ok(())
}

/// Prints each connection as the kernel reports it, from both ends. The timer is the time until the
/// first keepalive probe of an idle connection.
fn print_connections(clients: &[Client], server: SocketAddr) {
    let all = sockets::connections(server.port());
    println!("{:<12} {:<45} {:<20} at the server", "", "five-tuple", "keepalive probe in");
    for client in clients {
        let Some(near) = find_near(&all, client, server) else {
            println!("{:<12} (available on Linux only)", client.running.name);
            continue;
        };
        let far = find_far(&all, near);
        let timer = |c: Option<&Connection>| match c.and_then(|c| c.keepalive_timer) {
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None => "no keepalive".to_owned(),
        };
        let tuple = format!("tcp {} -> {}", near.local, near.remote);
        println!(
            "{:<12} {tuple:<45} {:<20} {}",
            client.running.name,
            timer(Some(near)),
            timer(far)
        );
    }
    println!("The server detects every dead client, whether or not the client uses keepalive:");
    println!("its listener has keepalive on, and each accepted connection inherits it.");
}

/// Kills a client, and prints how and when the server detects that.
fn vanish(clients: &mut Vec<Client>, index: usize, server: &Server) -> Result<(), String> {
    let mut victim = clients.remove(index);
    let all = sockets::connections(server.address.port());
    let near = find_near(&all, &victim, server.address);
    let far = near.and_then(|near| find_far(&all, near)).map(|far| far.inode);
    let name = &victim.running.name;
    victim.running.child.kill().map_err(|e| format!("kill {name}: {e}"))?;
    let started = Instant::now();
    let Some(far) = far else {
        println!("(the time until the server detects it can be measured on Linux only)");
        return Ok(());
    };
    let pid = server.running.child.id();
    let closed = || (!sockets::inodes_of(pid).contains(&far)).then_some(());
    run::wait_for(STEP_TIMEOUT, closed).ok_or("the server still holds the connection")?;
    println!(
        "The kernel closes the connection of the killed client (FIN). The server's wait for a"
    );
    println!(
        "hang-up ends, and the server closes its end after {} ms.",
        milliseconds(started.elapsed())
    );
    println!("If the whole machine vanishes, no FIN arrives. Then the keepalive probes detect it,");
    println!("by default 45 s + 5 x 15 s = 120 s after the last received segment.");
    Ok(())
}

/// The client's end of its connection.
fn find_near<'a>(
    all: &'a [Connection],
    client: &Client,
    server: SocketAddr,
) -> Option<&'a Connection> {
    let inodes = sockets::inodes_of(client.running.child.id());
    all.iter().find(|c| c.remote == server && inodes.contains(&c.inode))
}

/// The server's end of a connection, which is on this machine as well.
fn find_far<'a>(all: &'a [Connection], near: &Connection) -> Option<&'a Connection> {
    all.iter().find(|c| c.local == near.remote && c.remote == near.local)
}

fn milliseconds(time: Duration) -> u128 {
    time.as_millis().max(1)
}
