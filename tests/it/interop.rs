//! D4: Unix sockets with other programs as peers: Python and socat.

use crate::support::os::AsRawFd;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::process::Program;
use crate::support::*;

both_apis![
    unix_client_in_python_is_served,
    unix_server_in_python_is_reached,
    credentials_with_python_are_correct_on_both_sides,
    descriptors_to_python_arrive_with_contents,
    descriptors_from_python_are_received,
    packets_with_python_arrive_whole,
    socat_as_client_is_served,
    socat_as_server_is_reached,
    #[cfg(feature = "datagram")] {
        unix_datagrams_to_python_arrive,
        unix_datagrams_from_python_arrive,
        unix_datagrams_with_socat_arrive,
    }
];

/// `None`: the program is not installed, which is a failure where all tests must run.
fn start(command: &mut Command) -> Option<Program> {
    match Program::spawn(command) {
        Ok(program) => Some(program),
        Err(e) => {
            let what = format!("{:?}: {e}", command.get_program());
            assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped: {what}");
            println!("skipped: {what}");
            None
        }
    }
}

fn start_python(script: &str, words: &[&str]) -> Option<Program> {
    let script = format!("import os, socket, struct, sys\n{script}");
    start(Command::new("python3").arg("-c").arg(script).args(words))
}

/// A path and an abstract name, as an endpoint and in Python's form.
fn names<A: Api>(test: &str, dir: &TempDir) -> [(String, String); 2] {
    let path = dir.path("s").display().to_string();
    let name = format!("keepsock-{test}-{}-{}", A::NUMBER, std::process::id());
    // Python's "\0" cannot be an argument.
    [(format!("unix:{path}"), path), (format!("unix:@{name}"), format!("@{name}"))]
}

const NAME: &str = "
name = sys.argv[1]
if name[0] == '@':
    name = '\\0' + name[1:]
";

fn options<A: Api>() -> [Opt<'static, A>; 2] {
    [Opt::ReadTimeout(60_000), Opt::CloseTimeout(0)]
}

fn connected<A: Api>(endpoint: &str, options: &[Opt<'_, A>]) -> A::Client {
    let found = std::cell::RefCell::new(None);
    eventually("it listens", || {
        *found.borrow_mut() = A::connect(endpoint, options).ok();
        found.borrow().is_some()
    });
    found.into_inner().unwrap()
}

/// D4: a Python client connects by path and by abstract name.
fn unix_client_in_python_is_served<A: Api>() {
    let script = format!(
        "{NAME}
s = socket.socket(socket.AF_UNIX)
s.connect(name)
s.sendall(b'hello from python\\n')
print(s.makefile().readline(), end='', flush=True)
s.close()
"
    );
    let dir = TempDir::new();
    for (endpoint, name) in names::<A>("client", &dir) {
        let server = A::listen(&endpoint, &options::<A>()).unwrap();
        server.set_accept_timeout(60_000).unwrap();
        let Some(python) = start_python(&script, &[&name]) else {
            return;
        };
        let accepted = server.accept().unwrap();
        assert_eq!(accepted.read_line(64).unwrap(), "hello from python");
        accepted.write_all(b"hello to python\n").unwrap();
        assert_eq!(python.next_line(), "hello to python");
        assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 0);
        python.ends_well();
    }
}

/// D4: a client connects to a Python server.
fn unix_server_in_python_is_reached<A: Api>() {
    let script = format!(
        "{NAME}
l = socket.socket(socket.AF_UNIX)
l.bind(name)
l.listen()
c, _ = l.accept()
for line in c.makefile():
    c.sendall(line.upper().encode())
"
    );
    let dir = TempDir::new();
    for (endpoint, name) in names::<A>("server", &dir) {
        let Some(python) = start_python(&script, &[&name]) else {
            return;
        };
        let client = connected::<A>(&endpoint, &options::<A>());
        client.write_all(b"hello\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "HELLO");
        client.close().unwrap();
        python.ends_well();
    }
}

/// D4: both sides report correct credentials of each other.
fn credentials_with_python_are_correct_on_both_sides<A: Api>() {
    let script = format!(
        "{NAME}
s = socket.socket(socket.AF_UNIX)
s.connect(name)
print(*struct.unpack('3i', s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)), flush=True)
sys.stdin.read()
"
    );
    let dir = TempDir::new();
    let [(endpoint, name), _] = names::<A>("credentials", &dir);
    let server = A::listen(&endpoint, &options::<A>()).unwrap();
    server.set_accept_timeout(60_000).unwrap();
    let Some(python) = start_python(&script, &[&name]) else {
        return;
    };
    let accepted = server.accept().unwrap();
    let own = std::fs::metadata("/proc/self").unwrap();
    let (pid, uid, gid) = (std::process::id(), own.uid(), own.gid());
    assert_eq!(python.next_line(), format!("{pid} {uid} {gid}"));
    let peer = accepted.peer_credentials().unwrap();
    assert_eq!(peer, Peer { pid: i64::from(python.id()), uid, gid });
    python.ends_well();
    drop(server);

    // The other direction: the listening side also gets the credentials.
    let script = format!(
        "{NAME}
l = socket.socket(socket.AF_UNIX)
l.bind(name)
l.listen()
s, _ = l.accept()
print(*struct.unpack('3i', s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)), flush=True)
sys.stdin.read()
"
    );
    let Some(python) = start_python(&script, &[&name]) else {
        return;
    };
    let client = connected::<A>(&endpoint, &options::<A>());
    assert_eq!(python.next_line(), format!("{pid} {uid} {gid}"));
    assert_eq!(client.peer_credentials().unwrap().pid, i64::from(python.id()));
    python.ends_well();
}

/// D4: socket.recv_fds of Python receives descriptors with their contents.
fn descriptors_to_python_arrive_with_contents<A: Api>() {
    let script = format!(
        "{NAME}
s = socket.socket(socket.AF_UNIX)
s.connect(name)
data, fds, flags, _ = socket.recv_fds(s, 100, 10)
print(data.decode(), len(fds), flags & socket.MSG_CTRUNC, flush=True)
for fd in fds:
    print(os.pread(fd, 100, 0).decode(), flush=True)
"
    );
    let dir = TempDir::new();
    let [(endpoint, name), _] = names::<A>("to", &dir);
    let server = A::listen(&endpoint, &options::<A>()).unwrap();
    server.set_accept_timeout(60_000).unwrap();
    let Some(python) = start_python(&script, &[&name]) else {
        return;
    };
    let accepted = server.accept().unwrap();
    let files = ["first", "second"].map(|text| {
        let mut file = system::blank_file(0);
        file.write_all(text.as_bytes()).unwrap();
        file
    });
    let fds = files.each_ref().map(AsRawFd::as_raw_fd);
    accepted.write_fds(b"files", &fds).unwrap();
    assert_eq!(
        [python.next_line(), python.next_line(), python.next_line()],
        ["files 2 0", "first", "second"]
    );
    python.ends_well();
}

/// D4: descriptors from socket.send_fds of Python are received, also if fewer are requested than
/// sent.
fn descriptors_from_python_are_received<A: Api>() {
    let script = format!(
        "{NAME}
s = socket.socket(socket.AF_UNIX)
s.connect(name)
fds = [os.memfd_create(word) for word in ('first', 'second')]
for fd, word in zip(fds, (b'first', b'second')):
    os.write(fd, word)
socket.send_fds(s, [b'fi', b'les'], fds)
socket.send_fds(s, [b'again'], fds)
sys.stdin.read()
"
    );
    let dir = TempDir::new();
    let [(endpoint, name), _] = names::<A>("from", &dir);
    let server = A::listen(&endpoint, &options::<A>()).unwrap();
    server.set_accept_timeout(60_000).unwrap();
    let Some(python) = start_python(&script, &[&name]) else {
        return;
    };
    let accepted = server.accept().unwrap();
    let content = |got: Passed| {
        got.fds.into_iter().map(|fd| {
            let (mut file, mut text) = (File::from(fd), String::new());
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        })
    };
    let got = accepted.read_fds(5, 10).unwrap();
    assert_eq!((got.bytes.as_slice(), got.truncated), (&b"files"[..], false));
    assert_eq!(content(got).collect::<Vec<_>>(), ["first", "second"]);
    let got = accepted.read_fds(5, 1).unwrap();
    assert_eq!((got.bytes.as_slice(), got.truncated), (&b"again"[..], true));
    assert_eq!(content(got).collect::<Vec<_>>(), ["first"]);
    python.ends_well();
}

/// D4: seqpacket sockets with Python, as client and as server, with descriptors.
fn packets_with_python_arrive_whole<A: Api>() {
    let packets = || {
        let [read, close] = options::<A>();
        [Opt::Seqpacket(true), read, close]
    };
    let client = format!(
        "{NAME}
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(name)
s.send(b'one')
s.send(b'and two')
print(s.recv(100).decode(), flush=True)
data, fds, _, _ = socket.recv_fds(s, 100, 10)
print(data.decode(), len(fds), flush=True)
socket.send_fds(s, [b'back'], fds)
"
    );
    let server = format!(
        "{NAME}
l = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
l.bind(name)
l.listen()
c, _ = l.accept()
while packet := c.recv(100):
    c.send(b'<' + packet + b'>')
"
    );
    let dir = TempDir::new();
    let mut buf = [0; 100];
    for (endpoint, name) in names::<A>("packets", &dir) {
        let listening = A::listen(&endpoint, &packets()).unwrap();
        listening.set_accept_timeout(60_000).unwrap();
        let Some(python) = start_python(&client, &[&name]) else {
            return;
        };
        let accepted = listening.accept().unwrap();
        let lengths = [(); 2].map(|()| accepted.read(&mut buf).unwrap());
        assert_eq!(lengths, [3, 7]);
        accepted.write_all(b"a packet").unwrap();
        let file = system::blank_file(1);
        accepted.write_fds(b"another", &[file.as_raw_fd()]).unwrap();
        assert_eq!([python.next_line(), python.next_line()], ["a packet", "another 1"]);
        let got = accepted.read_fds(100, 2).unwrap();
        assert_eq!((got.bytes.as_slice(), got.fds.len()), (&b"back"[..], 1));
        assert_eq!(accepted.read(&mut buf).unwrap(), 0);
        python.ends_well();
        drop(listening);

        let Some(python) = start_python(&server, &[&name]) else {
            return;
        };
        let client = connected::<A>(&endpoint, &packets());
        for word in [&b"a"[..], b"bc"] {
            client.write_all(word).unwrap();
        }
        let lengths = [(); 2].map(|()| client.read(&mut buf).unwrap());
        assert_eq!((lengths, &buf[..4]), ([3, 4], &b"<bc>"[..]));
        client.close().unwrap();
        python.ends_well();
    }
}

/// The address in the form of socat.
fn socat_address(what: &str, name: &str) -> String {
    match name.strip_prefix('@') {
        Some(name) => format!("ABSTRACT-{what}:{name}"),
        None => format!("UNIX-{what}:{name}"),
    }
}

/// D4: socat sends a request, over a path and an abstract name.
fn socat_as_client_is_served<A: Api>() {
    let dir = TempDir::new();
    for (endpoint, name) in names::<A>("socat", &dir) {
        let server = A::listen(&endpoint, &options::<A>()).unwrap();
        server.set_accept_timeout(60_000).unwrap();
        let address = socat_address("CONNECT", &name);
        let Some(mut socat) = start(Command::new("socat").args(["-", &address])) else {
            return;
        };
        let accepted = server.accept().unwrap();
        socat.send_line("hello from socat");
        assert_eq!(accepted.read_line(64).unwrap(), "hello from socat");
        accepted.write_all(b"hello to socat\n").unwrap();
        assert_eq!(socat.next_line(), "hello to socat");
        accepted.close().unwrap();
        socat.ends_well();
    }
}

/// D4: socat replies, over a path and an abstract name.
fn socat_as_server_is_reached<A: Api>() {
    let dir = TempDir::new();
    for (endpoint, name) in names::<A>("socat-server", &dir) {
        let address = socat_address("LISTEN", &name);
        let Some(socat) = start(Command::new("socat").args([&address, "EXEC:cat"])) else {
            return;
        };
        let client = connected::<A>(&endpoint, &options::<A>());
        client.write_all(b"there and back\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "there and back");
        client.shutdown_write().unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        drop(client);
        socat.ends_well();
    }
}

/// D4: Unix datagrams to Python, by path and by abstract name. Python gets our name, so that it can
/// reply, our credentials, and a descriptor.
#[cfg(feature = "datagram")]
fn unix_datagrams_to_python_arrive<A: Api>() {
    let script = format!(
        "{NAME}
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind(name)
print('bound', flush=True)
while True:
    data, control, flags, sender = s.recvmsg(1 << 20, 4096)
    if data == b'end':
        break
    known = {{kind: value for level, kind, value in control if level == socket.SOL_SOCKET}}
    pid, uid, gid = struct.unpack('iII', known[socket.SCM_CREDENTIALS])
    read = 'nothing'
    if socket.SCM_RIGHTS in known:
        fd, = struct.unpack('i', known[socket.SCM_RIGHTS])
        read = os.pread(fd, 64, 0).decode()
        os.close(fd)
    s.sendto(f'{{len(data)}} {{pid}} {{uid}} {{read}}'.encode(), sender)
"
    );
    let dir = TempDir::new();
    let file = dir.path("file");
    std::fs::write(&file, "words").unwrap();
    let file = File::open(file).unwrap();
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    for (endpoint, name) in names::<A>("datagrams-to", &dir) {
        let Some(python) = start_python(&script, &[&name]) else {
            return;
        };
        assert_eq!(python.next_line(), "bound");
        let client = A::Datagram::connect(&endpoint, &[Opt::ReadTimeout(60_000)]).unwrap();
        let answer = || {
            let got = client.recv(256).unwrap();
            assert_eq!(got.sender, endpoint);
            String::from_utf8(got.bytes).unwrap()
        };
        for len in [0, 1, 65_507, 65_508] {
            client.send(&vec![b'x'; len]).unwrap();
            assert_eq!(answer(), format!("{len} {} {uid} nothing", std::process::id()));
        }
        client.send_fds(b"read it", None, &[file.as_raw_fd()]).unwrap();
        assert_eq!(answer(), format!("7 {} {uid} words", std::process::id()));
        client.send(b"end").unwrap();
        python.ends_well();
    }
}

/// D4: Unix datagrams from Python, with the same checks.
#[cfg(feature = "datagram")]
fn unix_datagrams_from_python_arrive<A: Api>() {
    let script = format!(
        "{NAME}
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('')
s.connect(name)
for size in 0, 1, 65507, 65508:
    s.send(b'x' * size)
    print(s.recv(64).decode(), flush=True)
socket.send_fds(s, [b'write'], [1])
print(s.recv(64).decode(), flush=True)
"
    );
    let dir = TempDir::new();
    for (endpoint, name) in names::<A>("datagrams-from", &dir) {
        let server = A::Datagram::bind(&endpoint, &[Opt::ReadTimeout(60_000)]).unwrap();
        server.set_recv_metadata(true).unwrap();
        let Some(python) = start_python(&script, &[&name]) else {
            return;
        };
        for len in [0, 1, 65_507, 65_508] {
            let (got, info) = server.recv_info(100_000).unwrap();
            assert_eq!((got.bytes.len(), got.truncated), (len, false));
            assert_eq!(got.credentials.unwrap().pid, i64::from(python.id()));
            assert!(got.sender.starts_with("unix:@"), "{}", got.sender);
            server.reply(&info, format!("{len} came").as_bytes()).unwrap();
            assert_eq!(python.next_line(), format!("{len} came"));
        }
        let (got, passed) = server.recv_fds(64, 4).unwrap();
        assert_eq!((got.bytes.as_slice(), passed.fds.len()), (&b"write"[..], 1));
        // This is the output of Python itself.
        File::from(passed.fds.into_iter().next().unwrap()).write_all(b"by us\n").unwrap();
        assert_eq!(python.next_line(), "by us");
        server.send_to_endpoint(b"answered", &got.sender).unwrap();
        assert_eq!(python.next_line(), "answered");
        python.ends_well();
    }
}

/// D4: Unix datagrams with socat, in both directions.
#[cfg(feature = "datagram")]
fn unix_datagrams_with_socat_arrive<A: Api>() {
    let dir = TempDir::new();
    let server = A::Datagram::bind(&dir.endpoint("s"), &[Opt::ReadTimeout(60_000)]).unwrap();
    let to = format!("UNIX-SENDTO:{},bind={}", dir.path("s").display(), dir.path("c").display());
    let Some(mut socat) = start(Command::new("socat").args(["-", &to])) else {
        return;
    };
    socat.send_line("hello from socat");
    let (got, info) = server.recv_info(64).unwrap();
    assert_eq!((got.bytes.as_slice(), got.sender), (&b"hello from socat\n"[..], dir.endpoint("c")));
    server.reply(&info, b"hello to socat\n").unwrap();
    assert_eq!(socat.next_line(), "hello to socat");
    drop(socat);

    let at = format!("UNIX-RECVFROM:{},fork", dir.path("r").display());
    let Some(_echo) = start(Command::new("socat").args([at.as_str(), "EXEC:cat"])) else {
        return;
    };
    let found = std::cell::RefCell::new(None);
    let options = [Opt::ReadTimeout(60_000)];
    eventually("the socket is bound", || {
        *found.borrow_mut() = A::Datagram::connect(&dir.endpoint("r"), &options).ok();
        found.borrow().is_some()
    });
    let client = found.into_inner().unwrap();
    client.send(b"there and back").unwrap();
    assert_eq!(client.recv(64).unwrap().bytes, b"there and back");
}
