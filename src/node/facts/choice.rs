//! What to make of the facts: how we intercept, on which addresses, and what is lost by it.

use std::fmt;
use std::net::IpAddr;

use super::Facts;
use crate::plan::Interception;

/// What the configuration asks for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub interception: Interception,
    pub interface: &'a str,
    /// Addresses of services: without us kube-proxy, or what replaces it, answers for them.
    pub services: &'a [IpAddr],
    /// Addresses nobody else answers for: link-local.
    pub own: &'a [IpAddr],
}

/// How we intercept here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Choice {
    pub mode: Mode,
    /// The addresses to serve, those of services first; the others are not to be listened on either.
    pub addresses: Vec<IpAddr>,
    /// What is not as good as it could be, in a fixed order, each once.
    pub degraded: Vec<Degraded>,
}

/// The means of interception.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Permanent rules by the `iptables` program.
    Iptables,
    /// nftables, where a lease alone decides: a dead process is noticed when it has run out.
    LeaseOnly,
    /// nftables, where a packet is ours while there is a socket for it and the lease is alive.
    Nftables,
    /// None. The addresses, if there are any, are put on the link all the same.
    Off,
}

impl Mode {
    /// The word for metrics and `nodens status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::LeaseOnly => "lease-only",
            Self::Nftables => "nftables",
            Self::Off => "off",
        }
    }
}

/// Something that is not as good as it could be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Degraded {
    pub label: Label,
    /// One line for the log and `nodens status`: what is so, what is lost by it, what helps.
    pub words: String,
}

/// The kinds of [`Degraded`], which are the values of the metric's label.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Label {
    Ebpf,
    Iptables,
    Ipvs,
    NoDummy,
    NoOwnerFlag,
    NoSocketMatch,
}

impl Label {
    /// All of them, for metrics that show a zero.
    pub const ALL: [Self; 6] =
        [Self::Ebpf, Self::Iptables, Self::Ipvs, Self::NoDummy, Self::NoOwnerFlag, Self::NoSocketMatch];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::NoDummy => "no-dummy",
            Self::NoOwnerFlag => "no-owner-flag",
            Self::NoSocketMatch => "no-socket-match",
        }
    }
}

/// Why we cannot do what is asked for at all. One line, with the remedy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The program asked for does not run.
    Iptables(String),
    /// Nothing here may be changed by us.
    NoNetAdmin,
    /// nftables asked for, and not to be had.
    Nftables(String),
    /// Neither means is to be had.
    Nothing { nf_tables: String, iptables: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables(why) => write!(f, "node.interception is `iptables`, but {why}; use the image that has the program"),
            Self::NoNetAdmin => f.write_str(
                "no right to put addresses or rules on this host: grant CAP_NET_ADMIN, or leave the `node:` block out to serve only where asked",
            ),
            Self::Nftables(why) => write!(f, "node.interception is `nftables`, but nf_tables is not to be had: {why}"),
            Self::Nothing { nf_tables, iptables } => write!(
                f,
                "no means of interception: nf_tables: {nf_tables}; {iptables}. Load the module, use the image that has iptables, or set node.interception to `off`"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

impl Choice {
    /// Chooses. The same facts make the same choice.
    ///
    /// # Errors
    /// If what is asked for cannot be had; nothing was touched, and the agent has to say so and end.
    pub fn of(wanted: &Wanted<'_>, facts: &Facts) -> Result<Self, Refusal> {
        if !facts.net_admin {
            return Err(Refusal::NoNetAdmin);
        }
        let mut degraded = Vec::new();
        let mut tell = |label, words| degraded.push(Degraded { label, words });

        let mode = match (wanted.interception, &facts.nf_tables, &facts.iptables) {
            (Interception::Off, ..) => Mode::Off,
            (Interception::Iptables, _, Ok(())) | (Interception::Auto, Err(_), Ok(())) => Mode::Iptables,
            (Interception::Iptables, _, Err(why)) => return Err(Refusal::Iptables(why.clone())),
            (Interception::Nftables, Err(why), _) => return Err(Refusal::Nftables(why.clone())),
            (Interception::Auto, Err(nf_tables), Err(iptables)) => {
                return Err(Refusal::Nothing { nf_tables: nf_tables.clone(), iptables: iptables.clone() });
            }
            (Interception::Auto | Interception::Nftables, Ok(()), _) if facts.socket_match => Mode::Nftables,
            (Interception::Auto | Interception::Nftables, Ok(()), _) => Mode::LeaseOnly,
        };

        // Where nothing is intercepted, nobody translates for us either: whoever asks us was told our address.
        let mut services = wanted.services.to_vec();
        if mode != Mode::Off && !services.is_empty() {
            if let Some(evidence) = &facts.ebpf {
                tell(
                    Label::Ebpf,
                    format!(
                        "{evidence}: eBPF translates {} before any rule of ours, so it is left to the cluster DNS; {}",
                        list(&services),
                        remedy(wanted.own),
                    ),
                );
                services.clear();
            }
            let held: Vec<IpAddr> = services.iter().copied().filter(|it| facts.ipvs_holds.contains(it)).collect();
            if !held.is_empty() {
                tell(
                    Label::Ipvs,
                    format!(
                        "kube-proxy's IPVS holds {} on `kube-ipvs0`, so it is left to the cluster DNS; {}",
                        list(&held),
                        remedy(wanted.own),
                    ),
                );
                services.retain(|it| !held.contains(it));
            }
        }
        let addresses: Vec<IpAddr> = services.iter().chain(wanted.own).copied().collect();
        let mode = if addresses.is_empty() { Mode::Off } else { mode };

        match mode {
            Mode::Iptables => {
                let why = match (&facts.nf_tables, wanted.interception) {
                    (_, Interception::Iptables) => "as configured".to_owned(),
                    (Err(why), _) => format!("nf_tables is not to be had: {why}"),
                    (Ok(()), _) => "nf_tables is not used".to_owned(),
                };
                tell(
                    Label::Iptables,
                    format!(
                        "permanent rules by the iptables program ({why}): if Nodens is killed or hangs, DNS on this node fails until it is back, and nothing answers for it meanwhile"
                    ),
                );
            }
            Mode::LeaseOnly => tell(
                Label::NoSocketMatch,
                "the kernel has no nft_socket: if Nodens is killed, the cluster DNS answers only when the lease has run out".to_owned(),
            ),
            Mode::Nftables | Mode::Off => {}
        }
        if matches!(mode, Mode::LeaseOnly | Mode::Nftables) && !facts.owner_flag {
            tell(
                Label::NoOwnerFlag,
                "the kernel has no tables with an owner (Linux 5.12): if Nodens is killed, the node itself and hostNetwork pods get the cluster DNS only when the lease has run out".to_owned(),
            );
        }
        if !addresses.is_empty() && wanted.interface != "lo" && !facts.dummy_driver {
            tell(
                Label::NoDummy,
                format!(
                    "the kernel has no `dummy` driver: the addresses are on `lo`, not on a link `{}`",
                    wanted.interface
                ),
            );
        }
        degraded.sort_by_key(|it| it.label);
        Ok(Self { mode, addresses, degraded })
    }
}

/// What still works where addresses of services cannot be served.
fn remedy(own: &[IpAddr]) -> String {
    if own.is_empty() {
        "nothing is left to serve here: list a link-local address such as 169.254.20.10 and point the kubelets at it"
            .to_owned()
    } else {
        format!("served is {} only: point the kubelets at it", list(own))
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "10.96.0.10";
    const OWN: &str = "169.254.20.10";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn best() -> Facts {
        Facts {
            net_admin: true,
            nf_tables: Ok(()),
            socket_match: true,
            owner_flag: true,
            renews_in_place: true,
            dummy_driver: true,
            iptables: Ok(()),
            ipvs_holds: vec![],
            ebpf: None,
            input_drops: false,
        }
    }

    fn choose(interception: Interception, facts: &Facts) -> Result<Choice, Refusal> {
        let wanted = Wanted { interception, interface: "nodens", services: &[ip(SERVICE)], own: &[ip(OWN)] };
        Choice::of(&wanted, facts)
    }

    fn both() -> Vec<IpAddr> {
        vec![ip(SERVICE), ip(OWN)]
    }

    fn labels(choice: &Choice) -> Vec<&'static str> {
        choice.degraded.iter().map(|it| it.label.label()).collect()
    }

    /// Mode, addresses and labels that `auto` makes of facts.
    fn auto(change: impl FnOnce(&mut Facts)) -> (Mode, Vec<IpAddr>, Vec<&'static str>) {
        let mut facts = best();
        change(&mut facts);
        let choice = choose(Interception::Auto, &facts).expect("a choice");
        (choice.mode, choice.addresses.clone(), labels(&choice))
    }

    fn missing() -> Result<(), String> {
        Err("not there".to_owned())
    }

    #[test]
    fn a_kernel_with_everything_degrades_nothing() {
        for interception in [Interception::Auto, Interception::Nftables] {
            let choice = choose(interception, &best()).expect("a choice");
            assert_eq!(choice, Choice { mode: Mode::Nftables, addresses: both(), degraded: vec![] });
        }
    }

    #[test]
    fn each_missing_thing_has_its_mode_and_its_label() {
        assert_eq!(auto(|it| it.socket_match = false), (Mode::LeaseOnly, both(), vec!["no-socket-match"]));
        assert_eq!(auto(|it| it.owner_flag = false), (Mode::Nftables, both(), vec!["no-owner-flag"]));
        assert_eq!(auto(|it| it.dummy_driver = false), (Mode::Nftables, both(), vec!["no-dummy"]));
        assert_eq!(auto(|it| it.nf_tables = missing()), (Mode::Iptables, both(), vec!["iptables"]));
        assert_eq!(auto(|it| it.ipvs_holds = vec![ip(SERVICE)]), (Mode::Nftables, vec![ip(OWN)], vec!["ipvs"]));
        assert_eq!(auto(|it| it.ebpf = Some("it is here".to_owned())), (Mode::Nftables, vec![ip(OWN)], vec!["ebpf"]));
    }

    #[test]
    fn what_loses_nothing_is_no_degradation() {
        assert_eq!(auto(|it| it.renews_in_place = false), (Mode::Nftables, both(), vec![]));
        assert_eq!(auto(|it| it.input_drops = true), (Mode::Nftables, both(), vec![]));
        assert_eq!(auto(|it| it.iptables = missing()), (Mode::Nftables, both(), vec![]));
    }

    #[test]
    fn degradations_add_up_in_a_fixed_order() {
        let all = auto(|it| {
            (it.socket_match, it.owner_flag, it.dummy_driver) = (false, false, false);
            it.ebpf = Some("it is here".to_owned());
            it.ipvs_holds = vec![ip(SERVICE)];
        });
        assert_eq!(all, (Mode::LeaseOnly, vec![ip(OWN)], vec!["ebpf", "no-dummy", "no-owner-flag", "no-socket-match"]));
    }

    #[test]
    fn a_service_address_that_is_not_to_be_had_leaves_nothing_where_it_was_the_only_one() {
        let facts = Facts { ebpf: Some("it is here".to_owned()), dummy_driver: false, ..best() };
        let wanted =
            Wanted { interception: Interception::Auto, interface: "nodens", services: &[ip(SERVICE)], own: &[] };
        let choice = Choice::of(&wanted, &facts).expect("a choice");
        assert_eq!((choice.mode, choice.addresses.len(), labels(&choice)), (Mode::Off, 0, vec!["ebpf"]));
        assert!(choice.degraded[0].words.contains("169.254.20.10"), "{}", choice.degraded[0].words);
    }

    #[test]
    fn ebpf_does_not_matter_where_nobody_serves_a_service_address() {
        let facts = Facts { ebpf: Some("it is here".to_owned()), ..best() };
        let wanted = Wanted { interception: Interception::Auto, interface: "lo", services: &[], own: &[ip(OWN)] };
        let choice = Choice::of(&wanted, &facts).expect("a choice");
        assert_eq!(choice, Choice { mode: Mode::Nftables, addresses: vec![ip(OWN)], degraded: vec![] });
    }

    #[test]
    fn the_loopback_as_configured_needs_no_driver() {
        let facts = Facts { dummy_driver: false, ..best() };
        let wanted = Wanted { interception: Interception::Auto, interface: "lo", services: &[ip(SERVICE)], own: &[] };
        assert_eq!(Choice::of(&wanted, &facts).expect("a choice").degraded, vec![]);
    }

    #[test]
    fn off_serves_every_address_and_asks_for_no_netfilter() {
        let facts = Facts {
            nf_tables: missing(),
            iptables: missing(),
            ebpf: Some("it is here".to_owned()),
            ipvs_holds: vec![ip(SERVICE)],
            ..best()
        };
        let choice = choose(Interception::Off, &facts).expect("a choice");
        assert_eq!(choice, Choice { mode: Mode::Off, addresses: both(), degraded: vec![] });
    }

    #[test]
    fn iptables_as_configured_is_said_to_be_permanent() {
        let choice = choose(Interception::Iptables, &best()).expect("a choice");
        assert_eq!((choice.mode, labels(&choice)), (Mode::Iptables, vec!["iptables"]));
        assert!(choice.degraded[0].words.contains("as configured"), "{}", choice.degraded[0].words);
    }

    // L02: each refusal is one clear line.
    #[test]
    fn what_cannot_be_had_at_all_is_refused_in_one_line() {
        let refusal = |interception, change: fn(&mut Facts)| {
            let mut facts = best();
            change(&mut facts);
            choose(interception, &facts).expect_err("a refusal")
        };
        for interception in [Interception::Auto, Interception::Nftables, Interception::Iptables, Interception::Off] {
            assert_eq!(refusal(interception, |it| it.net_admin = false), Refusal::NoNetAdmin);
        }
        assert_eq!(
            refusal(Interception::Nftables, |it| it.nf_tables = missing()),
            Refusal::Nftables("not there".to_owned())
        );
        assert_eq!(
            refusal(Interception::Iptables, |it| it.iptables = missing()),
            Refusal::Iptables("not there".to_owned())
        );
        let nothing = refusal(Interception::Auto, |it| (it.nf_tables, it.iptables) = (missing(), missing()));
        for refusal in
            [nothing, Refusal::NoNetAdmin, Refusal::Nftables("x".to_owned()), Refusal::Iptables("x".to_owned())]
        {
            assert!(!refusal.to_string().contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn words_are_one_line_and_name_the_addresses() {
        let facts = Facts {
            ipvs_holds: vec![ip(SERVICE)],
            socket_match: false,
            owner_flag: false,
            dummy_driver: false,
            ..best()
        };
        let choice = choose(Interception::Auto, &facts).expect("a choice");
        assert!(choice.degraded.iter().all(|it| !it.words.contains('\n')));
        let ipvs = choice.degraded.iter().find(|it| it.label == Label::Ipvs).expect("told");
        assert!(ipvs.words.contains(SERVICE) && ipvs.words.contains(OWN), "{}", ipvs.words);
    }

    #[test]
    fn labels_are_distinct_and_sorted_as_they_read() {
        let words = Label::ALL.map(Label::label);
        assert!(words.is_sorted() && Label::ALL.is_sorted());
        assert!(words.windows(2).all(|it| it[0] != it[1]));
    }
}
