//! C1, C2, C5: the addresses of an endpoint, and connects by a list of addresses.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::libc;
use crate::support::netns;
use crate::support::{
    Api, Client, INFINITE, Opt, PendingLookup, Server, Token, fails, refused_address, system,
};
use keepsock::{ErrorKind, Family};

both_apis![
    lookup_of_each_kind_of_endpoint_is_defined,
    lookup_returns_the_preferred_family_first,
    lookup_with_remote_addresses_returns_them,
    lookup_result_connects_without_a_lookup,
    lookup_in_progress_finishes_in_an_event_loop,
    lookup_of_silent_name_server_ends_in_time,
    lookup_of_name_server_without_answer_for_a_family_returns_the_other,
];

const LIMIT: Duration = Duration::from_secs(60);

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// S4, C5: numeric endpoints, `localhost` and `*` need no resolver. A Unix socket has no addresses.
fn lookup_of_each_kind_of_endpoint_is_defined<A: Api>() {
    let only = |endpoint: &str| texts(&A::lookup(endpoint, &[]).unwrap());
    assert_eq!(only("192.0.2.1:80"), ["192.0.2.1:80"]);
    assert_eq!(only("[2001:db8::1]:80"), ["[2001:db8::1]:80"]);
    assert_eq!(only("*:80"), ["[::]:80", "0.0.0.0:80"]);
    assert!(only("localhost:80").contains(&"127.0.0.1:80".to_owned()));
    for (endpoint, kind, text) in [
        ("unix:/run/app.sock", ErrorKind::InvalidEndpoint, "a Unix socket has no IP address"),
        ("unix:@name", ErrorKind::InvalidEndpoint, "a Unix socket has no IP address"),
        ("no port", ErrorKind::InvalidEndpoint, "lookup"),
        ("[fe80::1%nosuchzone]:80", ErrorKind::InvalidEndpoint, "nosuchzone"),
        ("127.0.0.1:no-such-service", ErrorKind::NotFound, "no service is named"),
    ] {
        let failure = fails(A::lookup(endpoint, &[]), kind);
        assert!(failure.message.contains(text), "{failure:?}");
        assert_eq!(&*failure.operation, "lookup");
    }
    // E1: the code of getaddrinfo(3) is kept.
    let failure = fails(A::lookup("127.0.0.1:no-such-service", &[]), ErrorKind::NotFound);
    assert_eq!(failure.lookup_code, libc::EAI_SERVICE);
    // T2
    let token = A::token();
    token.fire();
    fails(A::lookup("192.0.2.1:80", &[Opt::Cancel(&token)]), ErrorKind::Cancelled);
}

/// C2: the families alternate and begin with the preferred one. C5: another family is left out.
fn lookup_returns_the_preferred_family_first<A: Api>() {
    let all = |options: &[Opt<'_, A>]| texts(&A::lookup("*:80", options).unwrap());
    assert_eq!(all(&[Opt::PreferredFamily(Family::Ipv4)]), ["0.0.0.0:80", "[::]:80"]);
    assert_eq!(all(&[Opt::PreferredFamily(Family::Ipv6)]), ["[::]:80", "0.0.0.0:80"]);
    assert_eq!(all(&[Opt::Family(Family::Ipv4)]), ["0.0.0.0:80"]);
    fails(A::lookup("192.0.2.1:80", &[Opt::Family(Family::Ipv6)]), ErrorKind::NotFound);
}

/// C5: a connect tries these addresses, in this order.
fn lookup_with_remote_addresses_returns_them<A: Api>() {
    let list = ["192.0.2.1:1", "[2001:db8::1]:2", "192.0.2.3:3"];
    let mut options: Vec<Opt<'_, A>> =
        list.iter().map(|a| Opt::Address(a.parse().unwrap())).collect();
    assert_eq!(texts(&A::lookup("service.invalid:7", &options).unwrap()), list);
    options.push(Opt::PreferredFamily(Family::Ipv6));
    let expected = ["[2001:db8::1]:2", "192.0.2.1:1", "192.0.2.3:3"];
    assert_eq!(texts(&A::lookup("service.invalid:7", &options).unwrap()), expected);
    let options = [Opt::Address(refused_address()), Opt::Family(Family::Ipv6)];
    fails(A::lookup("service.invalid:7", &options), ErrorKind::NotFound);
}

/// C5: a connect to the addresses of an earlier lookup does no lookup.
fn lookup_result_connects_without_a_lookup<A: Api>() {
    netns::in_namespace(&test_name!(A, "lookup_result_connects_without_a_lookup"), LIMIT, || {
        netns::name_server(Duration::ZERO, "timeout:1 attempts:1");
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let endpoint = format!("host.test:{}", server.port());
        let found = A::lookup(&endpoint, &[]).unwrap();
        assert_eq!(texts(&found), [server.endpoint()]);
        // No name server knows a name that begins with "hang".
        let mut options: Vec<_> = found.into_iter().map(Opt::Address).collect();
        options.push(Opt::ConnectTimeout(60_000));
        let start = Instant::now();
        let client = A::connect(&format!("hang.test:{}", server.port()), &options).unwrap();
        assert_eq!(client.five_tuple().remote.1, server.port());
        assert!(start.elapsed() < Duration::from_secs(30));
    });
}

/// C7: the lookup never waits. Its descriptor is readable when there is a result, and the timeout
/// alone is enough.
fn lookup_in_progress_finishes_in_an_event_loop<A: Api>() {
    // The resolver finds the port of a service.
    for (endpoint, kind) in
        [("localhost:9", None), ("127.0.0.1:no-such-service", Some(ErrorKind::NotFound))]
    {
        for by_descriptor in [true, false] {
            let mut pending = A::start_lookup(endpoint, &[Opt::ConnectTimeout(60_000)]).unwrap();
            let fd = if by_descriptor { pending.fd().unwrap() } else { crate::support::os::NO_FD };
            let outcome = loop {
                let timeout = i32::try_from(pending.timeout()).unwrap();
                assert!((0..=60_000).contains(&timeout));
                assert!(by_descriptor || timeout <= 25);
                system::poll(&[(fd, libc::POLLIN)], timeout);
                match pending.finish() {
                    Ok(None) => {}
                    Ok(Some(found)) => break Ok(found),
                    Err(failure) => break Err(failure),
                }
            };
            match kind {
                None => assert!(!outcome.unwrap().is_empty()),
                Some(kind) => drop(fails(outcome, kind)),
            }
            assert!(!by_descriptor || system::becomes_readable(fd, 0), "stays readable");
            assert_eq!(pending.timeout(), INFINITE);
            fails(pending.finish(), ErrorKind::WrongState);
            fails(pending.fd(), ErrorKind::WrongState);
            fails(pending.wait(), ErrorKind::WrongState);
        }
    }
}

/// C1, T2: a lookup whose name server does not answer ends at the deadline, or when its token is
/// fired.
fn lookup_of_silent_name_server_ends_in_time<A: Api>() {
    netns::in_namespace(&test_name!(A, "lookup_of_silent_name_server_ends_in_time"), LIMIT, || {
        netns::silent_resolver("timeout:30 attempts:1");
        let start = Instant::now();
        let failure =
            fails(A::lookup("host.test:80", &[Opt::ConnectTimeout(300)]), ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(&*failure.stage, "lookup");
        for by_descriptor in [true, false] {
            let token = A::token();
            let options = [Opt::ConnectTimeout(60_000), Opt::Cancel(&token)];
            let mut pending = A::start_lookup("host.test:80", &options).unwrap();
            assert_eq!(pending.finish().unwrap(), None);
            if by_descriptor {
                let fd = pending.fd().unwrap();
                token.fire();
                assert!(system::becomes_readable(fd, 20_000));
                fails(pending.finish(), ErrorKind::Cancelled);
            } else {
                token.fire();
                fails(pending.wait(), ErrorKind::Cancelled);
            }
        }
        let mut pending = A::start_lookup("host.test:80", &[Opt::ConnectTimeout(300)]).unwrap();
        assert!(system::becomes_readable(pending.fd().unwrap(), 20_000));
        while pending.finish().unwrap_or(Some(Vec::new())).is_none() {
            system::poll(&[(pending.fd().unwrap(), libc::POLLIN)], 20_000);
        }
    });
}

/// C1: at the deadline a lookup returns the family for which a name server has answered.
fn lookup_of_name_server_without_answer_for_a_family_returns_the_other<A: Api>() {
    netns::in_namespace(
        &test_name!(A, "lookup_of_name_server_without_answer_for_a_family_returns_the_other"),
        LIMIT,
        || {
            netns::name_server(Duration::ZERO, "timeout:30 attempts:1");
            let options = [Opt::ConnectTimeout(2000)];
            assert_eq!(texts(&A::lookup("four.test:80", &options).unwrap()), ["127.0.0.1:80"]);
        },
    );
}
