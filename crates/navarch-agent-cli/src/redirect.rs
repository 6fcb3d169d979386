//! `navarch agent redirect`: traffic of this machine to its Envoy, by rules of nftables.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use navarch_agent::dns::resolv::{PATH, Resolv};
use navarch_agent::redirect::apply;
use navarch_agent::redirect::options::{
    Chosen, Groups, Interface, Mode, Names, Options, Owner, Ports, Range, list,
};
use navarch_agent::redirect::ruleset;

use crate::output;

/// Lead the traffic of this machine, container or network namespace to its Envoy
///
/// Makes rules of nftables, all in one table (inet navarch) that is replaced at once: doing it again with
/// other flags leaves nothing behind. Needs root, and the programs nft and, for --mode TPROXY and --ipv6, ip.
/// The flags and variables of istio-iptables are known, too.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch agent redirect --redirect-dns\n  navarch agent redirect -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -x 10.8.0.0/16 -b '*' -d 15090,15021,15020\n  \
                  navarch agent redirect --dry-run | nft -c -f -\n  navarch agent redirect --undo"
)]
pub struct RedirectArgs {
    /// How traffic that comes in reaches Envoy: REDIRECT, TPROXY (keeps addresses) or NONE (no rules at all)
    #[arg(
        short,
        long,
        default_value = "REDIRECT",
        env = "ISTIO_INBOUND_INTERCEPTION_MODE",
        alias = "istio-inbound-interception-mode"
    )]
    mode: Mode,
    /// Port of Envoy for traffic that goes out
    #[arg(
        short = 'p',
        long,
        value_name = "PORT",
        default_value_t = 15001,
        env = "ENVOY_PORT",
        alias = "envoy-port"
    )]
    outbound_port: u16,
    /// Port of Envoy for traffic that comes in
    #[arg(
        short = 'z',
        long,
        value_name = "PORT",
        default_value_t = 15006,
        env = "INBOUND_CAPTURE_PORT",
        alias = "inbound-capture-port"
    )]
    inbound_port: u16,
    /// Port of Envoy for tunnels, which is never led elsewhere
    #[arg(
        short = 'e',
        long,
        value_name = "PORT",
        default_value_t = 15008,
        env = "INBOUND_TUNNEL_PORT",
        alias = "inbound-tunnel-port"
    )]
    tunnel_port: u16,
    /// Users, by number or name, that Envoy and the agent run as: what they send is not led to Envoy
    #[arg(short = 'u', long, value_name = "USERS", default_value = "1337", env = "PROXY_UID", value_parser = Listed::<Owner>::parse)]
    proxy_uid: Listed<Owner>,
    /// The same for groups; if it is not said, the users
    #[arg(short = 'g', long, value_name = "GROUPS", env = "PROXY_GID", value_parser = Listed::<Owner>::parse)]
    proxy_gid: Option<Listed<Owner>>,
    /// Ports for which traffic that comes in is led to Envoy, or *
    #[arg(
        short = 'b',
        long,
        value_name = "PORTS",
        default_value = "*",
        env = "ISTIO_INBOUND_PORTS",
        alias = "istio-inbound-ports"
    )]
    inbound_ports: Chosen<Ports>,
    /// Ports for which it is not, if all others are. That of SSH is left out unless others are named here,
    /// so that nobody is locked out
    #[arg(short = 'd', long, value_name = "PORTS", default_value = "22", env = "ISTIO_LOCAL_EXCLUDE_PORTS", alias = "istio-local-exclude-ports", value_parser = Listed::<Ports>::parse)]
    exclude_inbound_ports: Listed<Ports>,
    /// Destinations for which traffic that goes out is led to Envoy, or *
    #[arg(
        short = 'i',
        long,
        value_name = "CIDRS",
        default_value = "*",
        env = "ISTIO_SERVICE_CIDR",
        alias = "istio-service-cidr"
    )]
    outbound_cidrs: Chosen<Range>,
    /// Destinations for which it is not
    #[arg(short = 'x', long, value_name = "CIDRS", default_value = "", env = "ISTIO_SERVICE_EXCLUDE_CIDR", alias = "istio-service-exclude-cidr", value_parser = Listed::<Range>::parse)]
    exclude_outbound_cidrs: Listed<Range>,
    /// Ports for which traffic that goes out is led to Envoy, whatever its destination is
    #[arg(short = 'q', long, value_name = "PORTS", default_value = "", env = "ISTIO_OUTBOUND_PORTS", alias = "istio-outbound-ports", value_parser = Listed::<Ports>::parse)]
    outbound_ports: Listed<Ports>,
    /// Ports for which it is not
    #[arg(short = 'o', long, value_name = "PORTS", default_value = "", env = "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", alias = "istio-local-outbound-ports-exclude", value_parser = Listed::<Ports>::parse)]
    exclude_outbound_ports: Listed<Ports>,
    /// Interfaces whose traffic is not led to Envoy; docker* stands for all that begin so
    #[arg(short = 'c', long, value_name = "NAMES", default_value = "", env = "ISTIO_EXCLUDE_INTERFACES", alias = "istio-exclude-interfaces", value_parser = Listed::<Interface>::parse)]
    exclude_interfaces: Listed<Interface>,
    /// Interfaces of virtual machines: what comes in from them is led to Envoy as traffic that goes out
    #[arg(short = 'k', long, value_name = "NAMES", default_value = "", env = "KUBEVIRT_INTERFACES", alias = "istio-kubevirt-interfaces", alias = "kube-virt-interfaces", value_parser = Listed::<Interface>::parse)]
    guest_interfaces: Listed<Interface>,
    /// Groups whose traffic is led to Envoy, or *
    #[arg(long, value_name = "GROUPS", default_value = "*", env = "ISTIO_OUTBOUND_OWNER_GROUPS")]
    outbound_owner_groups: Chosen<Owner>,
    /// Groups whose traffic is not
    #[arg(long, value_name = "GROUPS", default_value = "", env = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", value_parser = Listed::<Owner>::parse)]
    exclude_outbound_owner_groups: Listed<Owner>,
    /// Lead questions for the name servers of /etc/resolv.conf to the agent
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE", num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    redirect_dns: bool,
    /// With --redirect-dns: questions for any name server
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    capture_all_dns: bool,
    /// Where the agent answers questions, on loopback
    #[arg(long, value_name = "PORT", default_value_t = 15053)]
    dns_port: u16,
    /// Lead IPv6 to Envoy, too, which has to listen there. A machine that has nothing else does it anyway
    #[arg(long, env = "ISTIO_DUAL_STACK", alias = "dual-stack", num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    ipv6: bool,
    /// Drop packets that belong to no connection
    #[arg(long, env = "INVALID_DROP", num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    drop_invalid: bool,
    /// TPROXY: the mark of packets for Envoy. The control plane tells Envoy 1337
    #[arg(
        short = 't',
        long,
        value_name = "MARK",
        default_value_t = 1337,
        env = "ISTIO_INBOUND_TPROXY_MARK",
        alias = "istio-inbound-tproxy-mark"
    )]
    tproxy_mark: u32,
    /// TPROXY: the table of routes for them
    #[arg(
        short = 'r',
        long,
        value_name = "TABLE",
        default_value_t = 133,
        env = "ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
        alias = "istio-inbound-tproxy-route-table"
    )]
    route_table: u32,
    /// Print what would be done, as nft -f reads it, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Remove all of it
    #[arg(long)]
    undo: bool,
}

/// A list, as one value: clap takes `Vec` for an argument that may be repeated.
#[derive(Clone, Debug, Default)]
struct Listed<T>(Vec<T>);

impl<T: std::str::FromStr<Err = String>> Listed<T> {
    fn parse(text: &str) -> Result<Self, String> {
        list(text).map(Listed)
    }
}

/// What the rules depend on beside the flags.
struct Machine {
    resolv_conf: String,
    has_ipv4: bool,
    has_ipv6: bool,
}

impl Machine {
    fn this() -> Self {
        // Nothing is sent: whether there is a route is all that is asked.
        let has_route = |from: SocketAddr, to: SocketAddr| {
            UdpSocket::bind(from).and_then(|socket| socket.connect(to)).is_ok()
        };
        let v4 = |address: [u8; 4]| SocketAddr::from((address, 9));
        let v6 = |address: Ipv6Addr| SocketAddr::from((address, 9));
        Machine {
            resolv_conf: std::fs::read_to_string(PATH).unwrap_or_default(),
            has_ipv4: has_route((Ipv4Addr::UNSPECIFIED, 0).into(), v4([192, 0, 2, 1])),
            has_ipv6: has_route(
                (Ipv6Addr::UNSPECIFIED, 0).into(),
                v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            ),
        }
    }
}

/// Changes the rules of the network namespace that it runs in.
pub fn run(args: RedirectArgs) -> Result<ExitCode> {
    let (is_dry, is_undo) = (args.dry_run, args.undo);
    let (plan, notes) = if is_undo {
        (ruleset::undo(), Vec::new())
    } else {
        let (options, notes) = args.options(&Machine::this());
        (ruleset::plan(&options), notes)
    };
    for note in notes {
        output::note(&note);
    }
    if is_dry {
        output::print(&apply::shown(&plan))?;
        return Ok(ExitCode::SUCCESS);
    }
    apply::apply(&plan).context("traffic is led nowhere else than before")?;
    Ok(ExitCode::SUCCESS)
}

impl RedirectArgs {
    /// The options, and what whoever asks for them should know.
    fn options(self, machine: &Machine) -> (Options, Vec<String>) {
        let mut notes = Vec::new();
        let ipv6 = self.ipv6 || (machine.has_ipv6 && !machine.has_ipv4);
        if machine.has_ipv6 && !ipv6 {
            notes.push("note: this machine has IPv6, which is not led to Envoy without --ipv6".to_owned());
        }
        let servers = match self.capture_all_dns {
            true => Chosen::All,
            false => Chosen::Only(Resolv::parse(&machine.resolv_conf).addresses()),
        };
        let has_servers = !matches!(&servers, Chosen::Only(servers) if servers.is_empty());
        if self.redirect_dns && !has_servers {
            notes.push(format!(
                "note: {PATH} has no name servers, so that no question is led to the agent; --capture-all-dns takes all"
            ));
        }
        let names = (self.redirect_dns && has_servers).then_some(Names { port: self.dns_port, servers });
        let owner_groups = match self.outbound_owner_groups {
            Chosen::Only(groups) if !groups.is_empty() => Groups::Only(groups),
            Chosen::All | Chosen::Only(_) => Groups::AllBut(self.exclude_outbound_owner_groups.0),
        };
        let options = Options {
            mode: self.mode,
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            tunnel_port: self.tunnel_port,
            groups: self.proxy_gid.unwrap_or_else(|| self.proxy_uid.clone()).0,
            users: self.proxy_uid.0,
            inbound_ports: self.inbound_ports,
            inbound_ports_left: self.exclude_inbound_ports.0,
            outbound_ranges: self.outbound_cidrs,
            outbound_ranges_left: self.exclude_outbound_cidrs.0,
            outbound_ports: self.outbound_ports.0,
            outbound_ports_left: self.exclude_outbound_ports.0,
            interfaces_left: self.exclude_interfaces.0,
            interfaces_of_guests: self.guest_interfaces.0,
            owner_groups,
            names,
            ipv6,
            drop_invalid: self.drop_invalid,
            mark: self.tproxy_mark,
            route_table: self.route_table,
        };
        (options, notes)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use navarch_testkit::golden;

    use super::*;

    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Flags {
        #[command(flatten)]
        args: RedirectArgs,
    }

    /// The first line of each file is the flags, the rest what they make.
    const FLAGS: &str = "# navarch agent redirect ";

    #[test]
    fn golden_rules_are_as_written() -> Result<()> {
        let machine = Machine {
            resolv_conf: "nameserver 10.0.0.53\nnameserver fd00::53\n".to_owned(),
            has_ipv4: true,
            has_ipv6: false,
        };
        golden::texts(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redirect").as_ref(), |text| {
            let first = text.lines().next().unwrap_or_default();
            let flags = first.strip_prefix(FLAGS).context("the first line has no flags")?;
            let words = flags.split(' ').filter(|word| !word.is_empty()).map(|word| word.trim_matches('\''));
            let args = Flags::try_parse_from(words)?.args;
            let plan = if args.undo { ruleset::undo() } else { ruleset::plan(&args.options(&machine).0) };
            Ok(format!("{first}\n{}", apply::shown(&plan)))
        })
    }

    #[test]
    fn what_is_not_done_is_said() {
        let check = |flags: &[&str], machine: Machine, expected: &str| {
            let args = Flags::try_parse_from(flags)
                .map(|flags| flags.args)
                .unwrap_or_else(|error| panic!("{error}"));
            let notes = args.options(&machine).1.join("\n");
            assert!(if expected.is_empty() { notes.is_empty() } else { notes.contains(expected) }, "{notes}");
        };
        let machine = |has_ipv4, has_ipv6| Machine { resolv_conf: String::new(), has_ipv4, has_ipv6 };
        check(&[], machine(true, false), "");
        check(&[], machine(true, true), "--ipv6");
        check(&["--ipv6"], machine(true, true), "");
        check(&[], machine(false, true), "");
        check(&["--redirect-dns"], machine(true, false), "no name servers");
        check(&["--redirect-dns", "--capture-all-dns"], machine(true, false), "");
    }
}
