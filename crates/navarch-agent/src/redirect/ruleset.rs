//! Options to rules.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::options::{Chosen, Groups, Interface, Mode, Names, Options, Owner, Ports, Range};

/// The table that all rules are in.
pub const TABLE: &str = "inet navarch";
/// By which our routes and rules of routing are known again: a protocol of routes that nobody else has.
const PROTOCOL: &str = "173";
/// Where Envoy calls the application from when it passes on what it knows nothing of. IPv4 has it on any
/// machine, since all of 127.0.0.0/8 is.
const PASSED_ON: &str = "127.0.0.6";
const PASSED_ON_IPV6: &str = "::6";
/// Pages of Envoy and the agent, which whoever looks after a workload asks directly.
const PAGES: [u16; 3] = [15020, 15021, 15090];

/// What is to be done: one transaction of nftables, and commands of iproute2 before it or after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub before: Vec<Command>,
    pub rules: String,
    pub after: Vec<Command>,
}

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub arguments: Vec<String>,
    /// Whether it is no failure that there is nothing to do for it.
    pub may_fail: bool,
}

impl Command {
    fn ip(text: &str) -> Self {
        Command { arguments: text.split(' ').map(str::to_owned).collect(), may_fail: false }
    }

    fn ip_if_there(text: &str) -> Self {
        Command { may_fail: true, ..Command::ip(text) }
    }
}

/// Puts the rules in place of those that were there.
#[must_use]
pub fn plan(options: &Options) -> Plan {
    if options.mode == Mode::None {
        return undo();
    }
    let mut before = Vec::new();
    if options.ipv6 {
        before.push(Command::ip(&format!("-6 addr replace {PASSED_ON_IPV6}/128 dev lo")));
    }
    before.extend(forget_routes());
    if options.mode == Mode::Tproxy {
        let Options { mark, route_table, .. } = options;
        for family in families(options) {
            before.push(Command::ip(&format!(
                "{family} rule add fwmark {mark} lookup {route_table} protocol {PROTOCOL}"
            )));
            before.push(Command::ip(&format!(
                "{family} route replace local default dev lo table {route_table} proto {PROTOCOL}"
            )));
        }
    }
    Plan { before, rules: format!("{}{}", nothing(), table(options)), after: Vec::new() }
}

/// Takes everything back.
#[must_use]
pub fn undo() -> Plan {
    let mut after = forget_routes();
    after.push(Command::ip_if_there(&format!("-6 addr del {PASSED_ON_IPV6}/128 dev lo")));
    Plan { before: Vec::new(), rules: nothing(), after }
}

fn families(options: &Options) -> Vec<&'static str> {
    if options.ipv6 { vec!["-4", "-6"] } else { vec!["-4"] }
}

/// Of a machine without IPv6 nothing can be removed either.
fn forget_routes() -> Vec<Command> {
    let commands = ["-4", "-6"].map(|family| {
        [
            Command::ip_if_there(&format!("{family} rule flush protocol {PROTOCOL}")),
            Command::ip_if_there(&format!("{family} route flush table all proto {PROTOCOL}")),
        ]
    });
    commands.into_iter().flatten().collect()
}

/// Removes the table, also if it is not there.
fn nothing() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// One chain, a rule a line.
struct Chain {
    text: String,
}

impl Chain {
    /// A chain that the kernel runs.
    fn hooked(name: &str, hook: &str) -> Self {
        Chain { text: format!("\tchain {name} {{\n\t\t{hook}; policy accept;\n") }
    }

    /// A chain that others jump to.
    fn plain(name: &str) -> Self {
        Chain { text: format!("\tchain {name} {{\n") }
    }

    fn rule(&mut self, rule: &str) {
        let _ = writeln!(self.text, "\t\t{rule}");
    }

    fn end(mut self) -> String {
        self.text.push_str("\t}\n");
        self.text
    }
}

fn table(options: &Options) -> String {
    let mut chains = Vec::new();
    if options.drop_invalid {
        let mut chain = Chain::hooked("invalid", "type filter hook prerouting priority -150");
        leave(&mut chain, "iifname", &options.interfaces_left);
        chain.rule("meta l4proto tcp ct state invalid drop");
        chains.push(chain.end());
    }
    match options.mode {
        Mode::Redirect => chains.push(inbound(options)),
        Mode::Tproxy => chains.extend([guests(options), transparent(options), replies(options)]),
        Mode::None => {}
    }
    chains.extend([outbound(options), proxy(options)]);
    if let Some(names) = &options.names {
        chains.extend(zones(options, names));
    }
    chains.retain(|chain| !chain.is_empty());
    format!("table {TABLE} {{\n{}}}\n", chains.join("\n"))
}

/// Traffic that comes in, its destination rewritten.
fn inbound(options: &Options) -> String {
    let mut chain = Chain::hooked("inbound", "type nat hook prerouting priority -100");
    leave_family(&mut chain, options);
    from_guests(&mut chain, options);
    leave(&mut chain, "iifname", &options.interfaces_left);
    for matched in inbound_matches(&mut chain, options) {
        chain.rule(&format!("{matched}redirect to :{}", options.inbound_port));
    }
    chain.end()
}

/// The same without: source and destination stay, and the packet is led to the socket of Envoy.
fn transparent(options: &Options) -> String {
    let mut chain = Chain::hooked("inbound", "type filter hook prerouting priority -150");
    let mark = options.mark;
    leave_family(&mut chain, options);
    for guest in &options.interfaces_of_guests {
        chain.rule(&format!("iifname \"{}\" accept", guest.pattern()));
    }
    leave(&mut chain, "iifname", &options.interfaces_left);
    // Envoy calls the application with the address of the caller and this mark, which its connection keeps:
    // so the application's answers find back to Envoy (`replies`).
    chain.rule(&format!("meta l4proto tcp meta mark {mark} ct mark set meta mark"));
    chain.rule("iifname \"lo\" accept");
    chain.rule(&format!("meta l4proto tcp socket transparent 1 meta mark set {mark} accept"));
    for matched in inbound_matches(&mut chain, options) {
        let to = options.inbound_port;
        chain.rule(&format!("{matched}ip daddr != 127.0.0.1 tproxy ip to :{to} meta mark set {mark} accept"));
        if options.ipv6 {
            chain.rule(&format!("{matched}ip6 daddr != ::1 tproxy ip6 to :{to} meta mark set {mark} accept"));
        }
    }
    chain.end()
}

/// What of the traffic that comes in is for Envoy. Rules for what is not are made first.
fn inbound_matches(chain: &mut Chain, options: &Options) -> Vec<String> {
    let pages = PAGES.into_iter().chain([options.tunnel_port]).map(Ports::from);
    // What is only forwarded by this machine, from its containers for example, is not for it.
    const LOCAL: &str = "fib daddr type local ";
    match &options.inbound_ports {
        Chosen::All => {
            let left: Vec<Ports> = pages.chain(options.inbound_ports_left.iter().copied()).collect();
            chain.rule(&format!("tcp dport {} accept", set(&merged(&left))));
            vec![format!("meta l4proto tcp {LOCAL}")]
        }
        Chosen::Only(ports) if ports.is_empty() => Vec::new(),
        Chosen::Only(ports) => {
            chain.rule(&format!("tcp dport {} accept", set(&merged(&pages.collect::<Vec<_>>()))));
            vec![format!("tcp dport {} {LOCAL}", set(&merged(ports)))]
        }
    }
}

/// What comes in from guests, where traffic that comes in is not rewritten otherwise.
fn guests(options: &Options) -> String {
    if options.interfaces_of_guests.is_empty() {
        return String::new();
    }
    let mut chain = Chain::hooked("guests", "type nat hook prerouting priority -100");
    leave_family(&mut chain, options);
    from_guests(&mut chain, options);
    chain.end()
}

fn from_guests(chain: &mut Chain, options: &Options) {
    for guest in &options.interfaces_of_guests {
        let name = guest.pattern();
        for matched in outbound_matches(options) {
            chain.rule(&format!("iifname \"{name}\" {matched}redirect to :{}", options.outbound_port));
        }
        chain.rule(&format!("iifname \"{name}\" accept"));
    }
}

/// What the application answers to the address of the caller is led to Envoy.
fn replies(options: &Options) -> String {
    // A chain for routes: the kernel looks for the route again if the mark has changed.
    let mut chain = Chain::hooked("replies", "type route hook output priority -150");
    leave(&mut chain, "oifname", &options.interfaces_left);
    chain.rule(&format!("meta l4proto tcp ct mark {} meta mark set ct mark", options.mark));
    chain.end()
}

/// Traffic that goes out.
fn outbound(options: &Options) -> String {
    let mut chain = Chain::hooked("outbound", "type nat hook output priority -100");
    leave_family(&mut chain, options);
    leave(&mut chain, "oifname", &options.interfaces_left);
    if !options.outbound_ports_left.is_empty() {
        let ports = set(&merged(&options.outbound_ports_left));
        chain.rule(&format!("meta l4proto {{ tcp, udp }} th dport {ports} accept"));
    }
    chain.rule(&format!("oifname \"lo\" ip saddr {PASSED_ON} accept"));
    if options.ipv6 {
        chain.rule(&format!("oifname \"lo\" ip6 saddr {PASSED_ON_IPV6} accept"));
    }
    if options.mode == Mode::Tproxy {
        // Envoy's calls to the application, from the address of the caller.
        chain.rule(&format!("meta mark {} accept", options.mark));
    }
    for (owner, owners) in [("skuid", &options.users), ("skgid", &options.groups)] {
        if !owners.is_empty() {
            chain.rule(&format!("meta {owner} {} jump proxy", owner_set(owners)));
        }
    }
    match &options.owner_groups {
        Groups::Only(groups) => chain.rule(&format!("meta skgid != {} accept", owner_set(groups))),
        Groups::AllBut(groups) if groups.is_empty() => {}
        Groups::AllBut(groups) => chain.rule(&format!("meta skgid {} accept", owner_set(groups))),
    }
    // Before what stays on this machine: a name server may be on it.
    if let Some(names) = &options.names {
        for servers in servers(names, options) {
            chain.rule(&format!(
                "meta l4proto {{ tcp, udp }} th dport 53 {servers}redirect to :{}",
                names.port
            ));
        }
    }
    // An application that calls itself does it without Envoy, unless somebody asks for it.
    let has_loopback = |range: &Range| range.0.addr().is_loopback();
    let is_asked = matches!(&options.outbound_ranges, Chosen::Only(only) if only.iter().any(has_loopback));
    if !is_asked {
        chain.rule("oifname \"lo\" accept");
    }
    chain.rule("ip daddr 127.0.0.1 accept");
    if options.ipv6 {
        chain.rule("ip6 daddr ::1 accept");
    }
    for range in ranges(&options.outbound_ranges_left, options) {
        chain.rule(&format!("{range}accept"));
    }
    for matched in outbound_matches(options) {
        chain.rule(&format!("{matched}redirect to :{}", options.outbound_port));
    }
    chain.end()
}

/// What of the traffic that goes out is for Envoy.
fn outbound_matches(options: &Options) -> Vec<String> {
    let mut matches = Vec::new();
    if !options.outbound_ports.is_empty() {
        matches.push(format!("tcp dport {} ", set(&merged(&options.outbound_ports))));
    }
    match &options.outbound_ranges {
        Chosen::All => matches.push("meta l4proto tcp ".to_owned()),
        Chosen::Only(only) => {
            let ranges = ranges(only, options);
            matches.extend(ranges.into_iter().map(|range| format!("meta l4proto tcp {range}")));
        }
    }
    matches
}

/// What Envoy and the agent send goes where they send it. If that is this machine (the application called a
/// service that it is an instance of itself), it comes in through Envoy as everything else does.
fn proxy(options: &Options) -> String {
    let mut chain = Chain::plain("proxy");
    let mut left = vec![Ports::from(options.tunnel_port)];
    if options.names.is_some() {
        left.push(Ports::from(53));
    }
    let left = set(&merged(&left));
    let mut comes_in = |loopback: &str| {
        let to = options.inbound_port;
        chain.rule(&format!("oifname \"lo\" {loopback} tcp dport != {left} redirect to :{to}"));
    };
    comes_in("ip daddr != 127.0.0.1");
    if options.ipv6 {
        comes_in("ip6 daddr != ::1");
    }
    chain.rule("accept");
    chain.end()
}

/// A question of the application and the agent's own one to the same server may come from the same port. Two
/// zones keep the kernel from taking one for the other: 1 is between agent and servers, 2 before the agent.
fn zones(options: &Options, names: &Names) -> [String; 2] {
    let mut out = Chain::hooked("questions", "type filter hook output priority -300");
    for (owner, owners) in [("skuid", &options.users), ("skgid", &options.groups)] {
        if owners.is_empty() {
            continue;
        }
        let owners = owner_set(owners);
        out.rule(&format!("udp dport 53 meta {owner} {owners} ct zone set 1 accept"));
        out.rule(&format!("udp sport {} meta {owner} {owners} ct zone set 2 accept", names.port));
    }
    for servers in servers(names, options) {
        out.rule(&format!("udp dport 53 {servers}ct zone set 2"));
    }
    let mut answers = Chain::hooked("answers", "type filter hook prerouting priority -300");
    for servers in servers(names, options) {
        answers.rule(&format!("udp sport 53 {}ct zone set 1", servers.replace("daddr", "saddr")));
    }
    [out.end(), answers.end()]
}

/// Matches for the servers whose questions are taken; an empty one if all are.
fn servers(names: &Names, options: &Options) -> Vec<String> {
    match &names.servers {
        Chosen::All => vec![String::new()],
        Chosen::Only(servers) => {
            let ranges_of: Vec<Range> = servers.iter().copied().map(IpNet::from).map(Range).collect();
            ranges(&ranges_of, options)
        }
    }
}

fn leave_family(chain: &mut Chain, options: &Options) {
    if !options.ipv6 {
        chain.rule("meta nfproto ipv6 accept");
    }
}

fn leave(chain: &mut Chain, direction: &str, interfaces: &[Interface]) {
    for interface in interfaces {
        chain.rule(&format!("{direction} \"{}\" accept", interface.pattern()));
    }
}

/// A match for the ranges of each family: ranges in others are left out, which nftables does not take.
fn ranges(ranges: &[Range], options: &Options) -> Vec<String> {
    let all: Vec<IpNet> = ranges.iter().map(|range| range.0).collect();
    let all = IpNet::aggregate(&all);
    let of = |is_wanted: fn(&IpNet) -> bool| {
        let texts = all.iter().filter(|net| is_wanted(net)).map(|net| match net.addr() {
            IpAddr::V4(_) if net.prefix_len() == 32 => net.addr().to_string(),
            IpAddr::V6(_) if net.prefix_len() == 128 => net.addr().to_string(),
            _ => net.to_string(),
        });
        texts.collect::<Vec<_>>()
    };
    let mut matches = Vec::new();
    let (v4, v6) = (of(|net| matches!(net, IpNet::V4(_))), of(|net| matches!(net, IpNet::V6(_))));
    if !v4.is_empty() {
        matches.push(format!("ip daddr {} ", braces(&v4)));
    }
    if options.ipv6 && !v6.is_empty() {
        matches.push(format!("ip6 daddr {} ", braces(&v6)));
    }
    matches
}

/// Ranges that touch become one: nftables takes none that overlap.
fn merged(ports: &[Ports]) -> Vec<Ports> {
    let mut sorted = ports.to_vec();
    sorted.sort();
    let mut merged: Vec<Ports> = Vec::new();
    for next in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(next.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(next.last);
            }
            _ => merged.push(next),
        }
    }
    merged
}

fn set(ports: &[Ports]) -> String {
    braces(&ports.iter().map(Ports::to_string).collect::<Vec<_>>())
}

fn owner_set(owners: &[Owner]) -> String {
    let mut names: Vec<String> = owners.iter().map(Owner::to_string).collect();
    names.dedup();
    braces(&names)
}

fn braces(items: &[String]) -> String {
    format!("{{ {} }}", items.join(", "))
}
