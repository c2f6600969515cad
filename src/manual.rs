//! Checks of the pages under docs/ that need private items of the crate, and the Rust examples of the
//! pages and of README.md.

/// The Rust examples of the page are documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/liveness.md")]
struct Liveness;

/// The Rust examples of the page are compiled as documentation tests.
#[cfg(all(doctest, feature = "serve"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(test, keepsock_linux))]
// Clippy's permission for tests covers test functions, not the functions that they call.
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fmt::Write as _;
    use std::io;
    use std::path::Path;

    use crate::types::error::{About, ErrorKind};

    const PAGE: &str = "docs/from-bsd.md";
    const BEGIN: &str = "<!-- errno table: begin -->\n";
    const END: &str = "<!-- errno table: end -->\n";
    const STATUS_BEGIN: &str = "<!-- status table: begin -->\n";
    const STATUS_END: &str = "<!-- status table: end -->\n";

    /// Each errno of the table, with its usual cause.
    macro_rules! errnos {
        ($($name:ident: $cause:literal,)*) => {
            [$((stringify!($name), libc::$name, $cause)),*]
        };
    }

    /// The errnos that the Linux man pages of socket calls list, in alphabetical order.
    const ERRNOS: [(&str, i32, &str); 41] = errnos! {
        EACCES: "the right or policy of this machine; from the network: a firewall",
        EADDRINUSE: "another socket has the address",
        EADDRNOTAVAIL: "the address is not one of this machine",
        EAFNOSUPPORT: "the kernel has no such address family",
        EAGAIN: "the call would have to wait",
        EALREADY: "a connect is in progress",
        EBADF: "the descriptor is not open",
        ECONNABORTED: "the connection was aborted",
        ECONNREFUSED: "no socket listens there; on a connection: a firewall rejects",
        ECONNRESET: "the peer sent RST",
        EDESTADDRREQ: "no destination",
        EFAULT: "an invalid address in memory",
        EHOSTDOWN: "ICMP: host unknown",
        EHOSTUNREACH: "no route to the host, or ICMP says so",
        EINVAL: "an invalid argument, or a socket in another state",
        EISCONN: "the socket is connected",
        ELOOP: "too many symbolic links in the path of a Unix socket",
        EMFILE: "the process has no free descriptor",
        EMSGSIZE: "longer than the path or the protocol permits",
        ENAMETOOLONG: "the path of a Unix socket is too long",
        ENETDOWN: "the interface is down",
        ENETUNREACH: "no route to the network, or ICMP says so",
        ENFILE: "the system has no free descriptor",
        ENOBUFS: "the kernel has no buffer",
        ENODEV: "no such interface",
        ENOENT: "no such Unix socket",
        ENOMEM: "the kernel has no memory",
        ENONET: "ICMP: host isolated",
        ENOPROTOOPT: "no such option; from the network: ICMP protocol unreachable",
        ENOTCONN: "the socket is not connected",
        ENOTDIR: "a component of the path of a Unix socket is not a directory",
        ENOTSOCK: "the descriptor is not a socket",
        ENXIO: "no such interface",
        EOPNOTSUPP: "not supported; from the network: ICMP source route failed",
        EPERM: "a firewall rule or policy of this machine",
        EPIPE: "this side or the peer has ended the stream",
        EPROTO: "ICMP: a parameter problem",
        EPROTONOSUPPORT: "the kernel has no such protocol",
        EPROTOTYPE: "a Unix socket of another type",
        ETIMEDOUT: "no answer",
        ETOOMANYREFS: "too many descriptors are in flight over Unix sockets",
    };

    /// `KEEPSOCK_ERR_TIMED_OUT` of `TimedOut`, as cbindgen names it.
    fn status(kind: ErrorKind) -> String {
        let mut name = String::from("`KEEPSOCK_ERR");
        for letter in format!("{kind:?}").chars() {
            if letter.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name + "`"
    }

    fn table() -> String {
        let mut table = String::from(
            "| errno | usual cause | the call | handshake | connection | datagram |\n\
             |---|---|---|---|---|---|\n",
        );
        for (name, number, cause) in ERRNOS {
            let error = io::Error::from_raw_os_error(number);
            let reported = |about, is_reported| match is_reported {
                true => status(ErrorKind::reported(&error, about)),
                false => "-".to_owned(),
            };
            let network = crate::sys::is_from_network(&error);
            let icmp = network || matches!(number, libc::EMSGSIZE | libc::EOPNOTSUPP);
            writeln!(
                table,
                "| {name} | {cause} | {} | {} | {} | {} |",
                status(ErrorKind::of(&error)),
                reported(About::Handshake, network || number == libc::EOPNOTSUPP),
                reported(About::Connection, network || number == libc::EPIPE),
                reported(About::Datagram, icmp),
            )
            .unwrap();
        }
        table
    }

    /// Each status, with its meaning for a caller. The first three have the same errno always.
    const KINDS: [(ErrorKind, &str); 28] = [
        (ErrorKind::TimedOut, "a timeout of the caller"),
        (ErrorKind::LookupFailed, "the resolver did not answer"),
        (ErrorKind::WouldBlock, "the only status with EAGAIN"),
        (ErrorKind::Dead, "the peer vanished"),
        (ErrorKind::Stalled, "the peer accepts no data"),
        (ErrorKind::IdleTimeout, "no traffic"),
        (ErrorKind::HeartbeatTimeout, "no answer to a heartbeat"),
        (ErrorKind::Refused, "no socket listens there"),
        (ErrorKind::Reset, "EPIPE if a write found the connection ended"),
        (ErrorKind::EndOfStream, "the peer closed before the last requested byte"),
        (ErrorKind::Unreachable, "ENETUNREACH and others from the system"),
        (ErrorKind::AddressInUse, "another socket has the address"),
        (ErrorKind::AddressNotAvailable, "not an address of this machine"),
        (ErrorKind::NotFound, "a name or the file of a Unix socket"),
        (ErrorKind::PermissionDenied, "EPERM from some calls"),
        (ErrorKind::InvalidArgument, ""),
        (ErrorKind::InvalidEndpoint, "ENODEV, ENXIO for an interface"),
        (ErrorKind::WrongState, "EPIPE for a write after this side's shutdown"),
        (ErrorKind::Unsupported, ""),
        (ErrorKind::TooLong, ""),
        (ErrorKind::Malformed, "the length field of a message"),
        (ErrorKind::NoMemory, ""),
        (ErrorKind::NoDescriptors, "ENFILE if the system has none"),
        (ErrorKind::Closed, "this process closed the socket"),
        (ErrorKind::Cancelled, ""),
        (ErrorKind::Draining, ""),
        (ErrorKind::Panic, "a defect of the library"),
        (ErrorKind::Os, "used only without a number of the system"),
    ];

    fn status_table() -> String {
        const OTHERS: [(&str, i32); 3] =
            [("EBADMSG", libc::EBADMSG), ("ECANCELED", libc::ECANCELED), ("EIO", libc::EIO)];
        let mut table = String::from("| status | errno | remark |\n|---|---|---|\n");
        for (kind, remark) in KINDS {
            let known = ERRNOS.iter().map(|(name, number, _)| (*name, *number)).chain(OTHERS);
            let name = known.into_iter().find(|(_, number)| *number == kind.errno());
            writeln!(table, "| {} | {} | {remark} |", status(kind), name.unwrap().0).unwrap();
        }
        table
    }

    /// E1: the tables of the page are what the code does.
    /// `KEEPSOCK_BLESS=1 cargo test --all-features --lib errno_table` writes them.
    #[test]
    fn errno_tables_match_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        let mut page = std::fs::read_to_string(&path).unwrap();
        for (begin, table, end) in
            [(BEGIN, table(), END), (STATUS_BEGIN, status_table(), STATUS_END)]
        {
            let (before, rest) = page.split_once(begin).unwrap();
            let (committed, after) = rest.split_once(end).unwrap();
            let is_up_to_date = committed == table;
            page = [before, begin, &table, end, after].concat();
            if std::env::var_os("KEEPSOCK_BLESS").is_some() {
                std::fs::write(&path, &page).unwrap();
                continue;
            }
            assert!(
                is_up_to_date,
                "{PAGE} is out of date: \
                 KEEPSOCK_BLESS=1 cargo test --all-features --lib errno_table\n{table}"
            );
        }
    }
}
