//! What this host can do for us, each fact with a reason in words.
//!
//! Facts are data: whoever gathers them hands in what was read, and [`Choice::of`] decides what to make of them. Neither
//! touches the host. [`Host::read`] is the one place that looks, and it only looks.

mod choice;

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::iptables::Iptables;
use super::link::{Link, LinkError, Links};

pub use choice::{Choice, Degraded, Label, Mode, Refusal, Wanted};

/// Bit of the capability in `/proc/self/status`, capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
/// First kernel that renews an element of an nftables set in place.
const RENEWS_IN_PLACE: (u32, u32) = (6, 12);
/// Where kube-proxy in IPVS mode puts the addresses of services.
const IPVS_LINK: &str = "kube-ipvs0";
/// Links that only a replacement of kube-proxy by eBPF makes. Cilium translates the pods' packets to a service in their
/// own link even where it leaves kube-proxy running (cilium/cilium#16197).
const EBPF_LINKS: [(&str, &str); 4] =
    [("cilium_host", "Cilium"), ("cilium_net", "Cilium"), ("bpfin.cali", "Calico"), ("bpfout.cali", "Calico")];
/// Where programs that translate addresses in connect(2) are pinned: mount point, and what their names contain.
const PINS: &str = "/sys/fs/bpf";
const PIN_NAMES: [&str; 3] = ["connect4", "sock4_connect", "ctlb"];
/// How deep and how far we look for pins.
const PIN_DEPTH: usize = 6;
const PIN_LIMIT: usize = 4096;

/// What this host can do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    pub net_admin: bool,
    /// Or why not.
    pub nf_tables: Result<(), String>,
    /// Whether rules can ask for a listening socket (`nft_socket`).
    pub socket_match: bool,
    /// Whether the kernel removes a table with its owner's socket (Linux 5.12).
    pub owner_flag: bool,
    /// Whether a set's element is renewed in place; else it is deleted and added in one transaction, which loses nothing.
    pub renews_in_place: bool,
    /// Whether links of the kind `dummy` can be made.
    pub dummy_driver: bool,
    /// Whether the `iptables` programs run for the families of our addresses, or why not.
    pub iptables: Result<(), String>,
    /// Those of our addresses that kube-proxy's IPVS holds.
    pub ipvs_holds: Vec<IpAddr>,
    /// What tells that eBPF translates service addresses before any rule of ours, in words.
    pub ebpf: Option<String>,
    /// Whether `ip filter INPUT` drops by policy.
    pub input_drops: bool,
}

/// What was found out by trying, by whoever speaks to `nf_tables`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tried {
    pub nf_tables: Result<(), String>,
    pub socket_match: bool,
    pub owner_flag: bool,
    pub input_drops: bool,
}

/// What was read from the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/proc/self/status`.
    pub status: String,
    /// `/proc/sys/kernel/osrelease`.
    pub release: String,
    pub links: Vec<Link>,
    /// Pinned eBPF programs that sit in connect(2), as paths.
    pub pins: Vec<String>,
    pub dummy_driver: bool,
    pub iptables: Result<(), String>,
}

impl Host {
    /// Looks at the host. Changes nothing.
    ///
    /// # Errors
    /// If the kernel does not answer; a file that cannot be read counts as empty.
    pub async fn read(links: &Links, addresses: &[IpAddr]) -> Result<Self, LinkError> {
        Ok(Self {
            status: fs::read_to_string("/proc/self/status").unwrap_or_default(),
            release: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default(),
            links: links.survey().await?,
            pins: pins(Path::new(PINS)),
            // Who may not ask gets a refusal for that reason, see `Facts::net_admin`.
            dummy_driver: links.has_driver().await.unwrap_or(false),
            iptables: Iptables::open(addresses).map(drop).map_err(|it| it.to_string()),
        })
    }
}

impl Facts {
    /// Makes facts of what was read and tried.
    pub fn of(host: Host, tried: Tried, addresses: &[IpAddr]) -> Self {
        let ipvs_holds = host
            .links
            .iter()
            .filter(|it| it.name == IPVS_LINK)
            .flat_map(|it| &it.addresses)
            .map(|it| it.address)
            .filter(|it| addresses.contains(it))
            .collect();
        let ebpf = ebpf(&host);
        Self {
            net_admin: has_capability(&host.status, CAP_NET_ADMIN),
            nf_tables: tried.nf_tables,
            socket_match: tried.socket_match,
            owner_flag: tried.owner_flag,
            renews_in_place: version(&host.release).is_some_and(|it| it >= RENEWS_IN_PLACE),
            dummy_driver: host.dummy_driver,
            iptables: host.iptables,
            ipvs_holds,
            ebpf,
            input_drops: tried.input_drops,
        }
    }
}

/// What tells that eBPF translates service addresses, if anything does.
fn ebpf(host: &Host) -> Option<String> {
    let link = EBPF_LINKS.iter().find(|(name, _)| host.links.iter().any(|it| it.name == *name));
    let by_link = link.map(|(name, who)| format!("{who}'s link `{name}` is here"));
    by_link.or_else(|| host.pins.first().map(|it| format!("an eBPF program sits in connect(2): `{it}`")))
}

/// Whether the effective set in the text of `/proc/self/status` has the bit.
fn has_capability(status: &str, bit: u32) -> bool {
    let line = status.lines().find_map(|it| it.strip_prefix("CapEff:"));
    line.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()).is_some_and(|it| it >> bit & 1 == 1)
}

/// Major and minor number of a kernel release such as `6.12.3-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|it: char| !it.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Pins below `root` whose names say that they sit in connect(2), sorted; none if it is no place of ours to read.
fn pins(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_path_buf(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > PIN_LIMIT {
                break;
            }
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                if depth < PIN_DEPTH {
                    folders.push((entry.path(), depth + 1));
                }
            } else if PIN_NAMES.iter().any(|it| entry.file_name().to_string_lossy().contains(it)) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::{in_a_namespace, run};

    const SERVICE: &str = "10.96.0.10";

    fn tried() -> Tried {
        Tried { nf_tables: Ok(()), socket_match: true, owner_flag: true, input_drops: false }
    }

    fn addresses() -> Vec<IpAddr> {
        ["169.254.20.10", SERVICE].map(|it| it.parse().expect("an address")).to_vec()
    }

    /// Facts of a namespace after `commands`.
    fn facts_after(commands: &'static [&'static str], check: fn(&Facts)) {
        in_a_namespace(move || async move {
            for command in commands {
                run(command);
            }
            let links = Links::open().expect("a netlink socket");
            let before = run("ip -o addr") + &run("ip -o link");
            let mut host = Host::read(&links, &addresses()).await.expect("read");
            assert_eq!(run("ip -o addr") + &run("ip -o link"), before, "looking changes nothing");
            host.pins.clear();
            check(&Facts::of(host, tried(), &addresses()));
        });
    }

    #[test]
    fn an_empty_host_has_no_kube_proxy_at_all() {
        facts_after(&[], |facts| {
            assert!(facts.net_admin, "it made the namespace");
            assert_eq!((&facts.ebpf, &facts.ipvs_holds), (&None, &vec![]));
        });
    }

    #[test]
    fn ipvs_is_known_by_the_address_on_its_link() {
        facts_after(
            &[
                "ip link add kube-ipvs0 type bridge",
                "ip addr add 10.96.0.10/32 dev kube-ipvs0",
                "ip addr add 10.96.0.1/32 dev kube-ipvs0",
            ],
            |facts| assert_eq!(facts.ipvs_holds, [SERVICE.parse::<IpAddr>().expect("an address")]),
        );
    }

    #[test]
    fn cilium_is_known_by_its_link() {
        facts_after(&["ip link add cilium_net type bridge"], |facts| {
            assert_eq!(facts.ebpf.as_deref(), Some("Cilium's link `cilium_net` is here"));
        });
    }

    #[test]
    fn calico_is_known_by_its_link() {
        facts_after(&["ip link add bpfin.cali type bridge"], |facts| {
            assert_eq!(facts.ebpf.as_deref(), Some("Calico's link `bpfin.cali` is here"));
        });
    }

    #[test]
    fn a_program_in_connect_is_known_by_its_pin() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("cilium/socketlb/links/cgroup");
        fs::create_dir_all(&folder).expect("made");
        for name in ["cil_sock4_connect", "cil_sock6_post_bind"] {
            fs::write(folder.join(name), "").expect("written");
        }
        let pins = pins(root.path());
        assert_eq!(pins.len(), 1, "{pins:?}");
        let host = Host {
            status: String::new(),
            release: String::new(),
            links: vec![],
            pins,
            dummy_driver: true,
            iptables: Ok(()),
        };
        let said = ebpf(&host).expect("known");
        assert!(said.contains("connect(2)") && said.contains("cil_sock4_connect"), "{said}");
    }

    #[test]
    fn no_bpf_file_system_is_no_pin() {
        assert_eq!(pins(Path::new("/nonexistent")), Vec::<String>::new());
    }

    #[test]
    fn the_right_is_a_bit_of_the_effective_set() {
        assert!(has_capability("Name:\tnodens\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\n", CAP_NET_ADMIN));
        assert!(has_capability("CapEff:\t000001ffffffffff\n", CAP_NET_ADMIN));
        assert!(!has_capability("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000400\n", CAP_NET_ADMIN));
        assert!(!has_capability("", CAP_NET_ADMIN));
    }

    #[test]
    fn elements_are_renewed_in_place_since_6_12() {
        for (release, renews) in [
            ("6.18.44-fc-v657\n", true),
            ("6.12.0", true),
            ("6.11.9-amd64", false),
            ("5.15.0-100-generic", false),
            ("10.0", true),
            ("", false),
        ] {
            assert_eq!(version(release).is_some_and(|it| it >= RENEWS_IN_PLACE), renews, "{release}");
        }
    }
}
