//! What the kernel closes first when the agent dies: the listeners, before the netlink socket that owns a table.

use std::collections::BTreeMap;
use std::fs;

use crate::agent::{Agent, Config};
use crate::stage::{Flavour, Stage};

/// `NETLINK_NETFILTER`.
const NETFILTER: &str = "12";
/// Port 53 as `/proc/net/udp` writes it.
const DNS: &str = ":0035";

/// L08: the kernel lets go of files from the highest number down, and takes milliseconds over the owner of a table. Until
/// it has closed the listeners, their packets are caught and not answered.
#[test]
fn listeners_lie_above_the_netlink_sockets_of_the_plane() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let process = format!("/proc/{}", agent.pid());
    let read = |file: &str| fs::read_to_string(format!("{process}/net/{file}")).expect("the agent runs");
    // By inode, the number of the open file.
    let mut open = BTreeMap::new();
    for entry in fs::read_dir(format!("{process}/fd")).expect("the agent runs").flatten() {
        let number: u32 = entry.file_name().to_string_lossy().parse().expect("a number");
        let target = fs::read_link(entry.path()).expect("open").to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|it| it.strip_suffix(']')) {
            open.insert(inode.to_owned(), number);
        }
    }
    let number = |inode: Option<&str>| inode.and_then(|it| open.get(it)).copied();
    let netlink = read("netlink");
    let of_plane = netlink.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_plane: Vec<u32> = of_plane
        .filter(|line| line.get(1) == Some(&NETFILTER))
        .filter_map(|line| number(line.last().copied()))
        .collect();
    let udp = read("udp") + &read("udp6");
    let listeners = udp.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listeners = listeners.filter(|line| line.get(1).is_some_and(|local| local.ends_with(DNS)));
    let listeners: Vec<u32> = listeners.filter_map(|line| number(line.get(9).copied())).collect();
    assert!(!of_plane.is_empty() && listeners.len() == 8, "four addresses, two workers: {of_plane:?} {listeners:?}");
    assert!(of_plane.iter().max() < listeners.iter().min(), "netlink {of_plane:?}, listeners {listeners:?}");
}
