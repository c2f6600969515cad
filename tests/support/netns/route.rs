//! A client, a router and a server in three networks, and the effects of routers on connections.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::process::Stdio;

use super::super::process::cannot;
use super::network::{Network, join, run_tool, tool};
use super::sysctl;

/// client – router – server, over IPv4 and IPv6. The client's network is the test's own. The rules
/// for packets are in nftables and routes of the router's network.
pub struct Route {
    pub router: Network,
    pub server: Network,
}

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
}

impl Ip {
    pub const BOTH: [Ip; 2] = [Ip::V4, Ip::V6];

    /// The server's host in an endpoint.
    pub fn server(self) -> &'static str {
        match self {
            Ip::V4 => "198.51.100.2",
            Ip::V6 => "[2001:db8:2::2]",
        }
    }

    fn server_prefix(self) -> &'static str {
        match self {
            Ip::V4 => "198.51.100.2/32",
            Ip::V6 => "2001:db8:2::2/128",
        }
    }

    /// The name of the protocol in nftables.
    fn protocol(self) -> &'static str {
        match self {
            Ip::V4 => "ipv4",
            Ip::V6 => "ipv6",
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ip::V4 => "IPv4",
            Ip::V6 => "IPv6",
        })
    }
}

impl Route {
    /// Creates a route whose router forwards all packets.
    pub fn new() -> Route {
        let (client, router, server) = (Network::here(), Network::new(), Network::new());
        router.run(|| {
            sysctl("net.ipv4.ip_forward", "1");
            sysctl("net.ipv6.conf.all.forwarding", "1");
        });
        join(
            (&router, "clients", &["192.0.2.1/24", "2001:db8:1::1/64"]),
            (&client, "out", &["192.0.2.2/24", "2001:db8:1::2/64"]),
        );
        join(
            (&router, "servers", &["198.51.100.1/24", "2001:db8:2::1/64"]),
            (&server, "out", &["198.51.100.2/24", "2001:db8:2::2/64"]),
        );
        for (network, v4, v6) in
            [(&client, "192.0.2.1", "2001:db8:1::1"), (&server, "198.51.100.1", "2001:db8:2::1")]
        {
            network.ip(&format!("route add default via {v4}"));
            network.ip(&format!("-6 route add default via {v6}"));
        }
        Route { router, server }
    }

    /// Makes the router a stateful firewall. Only the client's side may connect, and the router
    /// forgets a connection after `seconds` without packets. Later packets belong to no connection
    /// and are dropped silently. The firewall does not adopt such a connection as an older one
    /// (`tcp_loose`).
    pub fn forget_idle_after(&self, seconds: u32) {
        self.load(
            "firewall",
            "counter forgotten { }
             counter known { }
             counter begun { }
             chain forward {
                 type filter hook forward priority 0; policy drop;
                 ct state invalid counter name forgotten drop
                 ct state established,related counter name known accept
                 iifname clients tcp flags & (syn|ack) == syn ct state new counter name begun accept
             }",
        );
        // These settings exist with connection tracking, which the rules start.
        self.router.run(|| {
            let conntrack = "net.netfilter.nf_conntrack_tcp";
            sysctl(&format!("{conntrack}_timeout_established"), &seconds.to_string());
            sysctl(&format!("{conntrack}_loose"), "0");
        });
    }

    /// The number of packets of forgotten connections.
    pub fn forgotten(&self) -> u64 {
        self.count("firewall", "forgotten")
    }

    /// Makes the router drop all packets in both directions. Its neighbors still find it, so no
    /// kernel reports an error.
    pub fn cut(&self) {
        self.cut_off("cut", &[""]);
    }

    /// Drops the packets of connections of this port only.
    pub fn cut_port(&self, port: u16) {
        let packets = [format!("tcp sport {port}"), format!("tcp dport {port}")];
        self.cut_off(&format!("cut_{port}"), &packets.each_ref().map(String::as_str));
    }

    fn cut_off(&self, table: &str, packets: &[&str]) {
        let mut rules = "counter lost { }
             chain forward {
                 type filter hook forward priority -10; policy accept;
"
        .to_owned();
        for which in packets {
            writeln!(rules, "{which} counter name lost drop").unwrap();
        }
        self.load(table, &format!("{rules} }}"));
    }

    /// Ends [`cut`](Self::cut): the router forwards all packets again.
    pub fn heal(&self) {
        self.unload("cut");
    }

    /// Removes the router's route to the server, which the router reports: ICMP "host unreachable"
    /// (RFC 792), "address unreachable" (RFC 4443). For an existing connection this is a hint (RFC
    /// 1122 section 4.2.3.9): Linux continues, and reports the hint as the reason when the
    /// connection times out.
    pub fn remove_way(&self, ip: Ip) {
        self.router.ip(&format!("route add unreachable {}", ip.server_prefix()));
    }

    /// Ends [`remove_way`](Self::remove_way).
    pub fn restore_way(&self, ip: Ip) {
        self.router.ip(&format!("route del unreachable {}", ip.server_prefix()));
    }

    /// Drops all packets of this family.
    pub fn blackhole(&self, ip: Ip) {
        self.load(
            &format!("hole_{}", ip.protocol()),
            &format!(
                "counter lost {{ }}
                 chain forward {{
                     type filter hook forward priority -10; policy accept;
                     meta nfproto {} counter name lost drop
                 }}",
                ip.protocol()
            ),
        );
    }

    /// Drops the first SYN of each client port. Linux sends the next one after 1 s (RFC 6298
    /// section 2, TCP_TIMEOUT_INIT), so the connect takes a second.
    pub fn lose_first_syn(&self, ip: Ip) {
        self.load(
            &format!("syn_{}", ip.protocol()),
            &format!(
                "counter lost {{ }}
                 set seen {{
                     type inet_service
                     flags dynamic
                 }}
                 chain forward {{
                     type filter hook forward priority -10; policy accept;
                     meta nfproto {} tcp flags & (syn|ack) == syn tcp sport != @seen \
                         add @seen {{ tcp sport }} counter name lost drop
                 }}",
                ip.protocol()
            ),
        );
    }

    /// Simulates a middlebox that drops keepalive: data and its acknowledgments pass, but keepalive
    /// probes and their answers do not.
    ///
    /// A keepalive probe of Linux is a segment without data (RFC 9293 section 3.8.4), and so is its
    /// answer. A stateless rule cannot distinguish them from other acknowledgments. An
    /// acknowledgment follows a segment that requires one. So a segment that uses sequence numbers
    /// (data, SYN, FIN) lets empty segments pass in the other direction for 400 ms, twice the
    /// longest delay of an acknowledgment in Linux (TCP_DELACK_MAX). The router drops all other
    /// empty segments. Probes come later than 400 ms because they follow at least one idle second.
    /// The router also drops probes of a closed window and window updates, so this middlebox does
    /// not suit a peer that does not read.
    ///
    /// The rule runs before connection tracking (priority -200), which would count even a dropped
    /// packet as activity.
    pub fn drop_keepalive(&self) {
        // A segment is empty if the length of the IP packet is that of its headers. nftables cannot
        // add, so each length of the TCP header (in words) has its rule.
        let mut empty = String::new();
        for words in 5..=15 {
            writeln!(empty, "tcp doff {words} ip length {} goto empty", 20 + 4 * words).unwrap();
            writeln!(empty, "tcp doff {words} ip6 length {} goto empty", 4 * words).unwrap();
        }
        self.load(
            "keepalive",
            &format!(
                "counter lost {{ }}
                 set asked {{
                     type inet_service . inet_service
                     flags dynamic,timeout
                     timeout 400ms
                 }}
                 chain empty {{
                     tcp sport . tcp dport @asked accept
                     counter name lost drop
                 }}
                 chain asks {{
                     update @asked {{ tcp dport . tcp sport }} accept
                 }}
                 chain prerouting {{
                     type filter hook prerouting priority -300; policy accept;
                     meta l4proto != tcp accept
                     tcp flags & rst == rst accept
                     tcp flags & (syn|fin) != 0 goto asks
                     {empty}
                     goto asks
                 }}"
            ),
        );
    }

    /// The number of segments that [`drop_keepalive`](Self::drop_keepalive) dropped.
    pub fn dropped_keepalive(&self) -> u64 {
        self.count("keepalive", "lost")
    }

    /// Loads a table of rules into the router. Missing rules would let all packets pass, and each
    /// test would succeed, so the kernel's rules are compared.
    fn load(&self, table: &str, rules: &str) {
        self.router.run(|| {
            let nft = tool("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn();
            let mut nft = nft.unwrap_or_else(|e| cannot(&format!("nft: {e}")));
            let text = format!("table inet {table} {{\n{rules}\n}}\n");
            nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            if !nft.wait().unwrap().success() {
                cannot(&format!("nft rejects the table {table}"));
            }
            let has = run_tool(tool("nft").args(["list", "table", "inet", table]));
            for word in ["hook ", "policy ", "counter name ", "goto ", "@"] {
                let (asked, there) = (text.matches(word).count(), has.matches(word).count());
                assert_eq!(asked, there, "{word:?} of the requested table:\n{text}\n{has}");
            }
        });
    }

    fn unload(&self, table: &str) {
        self.router.run(|| run_tool(tool("nft").args(["delete", "table", "inet", table])));
    }

    /// The number of packets that a counter of a table has seen.
    fn count(&self, table: &str, counter: &str) -> u64 {
        let text = self
            .router
            .run(|| run_tool(tool("nft").args(["list", "counter", "inet", table, counter])));
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no count in {text}"))
    }
}
