//! What the kernel must hold, and must not: no flow to our addresses tracked while they are ours, the fallback armed.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::{Name, RecordType};

use super::super::client::{AskError, Question};
use super::report::Report;
use crate::control::status::{Node, Status};
use crate::node::nft::{Flow, Found, Nft, PODS};

/// The chain that the fallback's servers are in, and the one that pods come from.
const SERVERS: &str = "fallback_servers";
const HOOK: &str = "fallback";

/// What was there before anything was asked.
pub(super) struct Kernel(Option<Result<BTreeSet<Flow>, String>>);

impl Kernel {
    /// Looks at what is tracked; not at all where nothing is intercepted.
    pub(super) async fn look(status: &Status) -> Self {
        let intercepts = status.node.as_ref().is_some_and(|node| node.mode != "off");
        if intercepts { Self(Some(tracked(&status.listen).await)) } else { Self(None) }
    }

    /// Compares with what is there by now, and looks whether the fallback is armed.
    ///
    /// # Errors
    /// Those of the output.
    pub(super) async fn check(&self, status: &Status, served: &[SocketAddr], report: &mut Report) -> io::Result<()> {
        let (Some(before), Some(node)) = (&self.0, &status.node) else {
            return report.note("connection tracking and fallback", "nothing is intercepted here");
        };
        let what = "connection tracking holds nothing of it";
        let appeared = match (before, tracked(served).await) {
            (Ok(before), Ok(after)) => Ok(after.difference(before).map(ToString::to_string).collect::<Vec<_>>()),
            (Err(why), _) => Err(why.clone()),
            (_, Err(why)) => Err(why),
        };
        let outcome = appeared.and_then(|flows| match flows.as_slice() {
            [] => Ok(String::new()),
            [first, ..] => Err(format!("{} appeared, such as {first}", flows.len())),
        });
        report.check(what, outcome)?;
        fallback(node, served, report).await
    }
}

/// Flows to or from `sockets`.
async fn tracked(sockets: &[SocketAddr]) -> Result<BTreeSet<Flow>, String> {
    let look = async { Nft::open()?.tracked().await };
    let flows = look.await.map_err(|error| format!("the kernel does not show it: {error}"))?;
    Ok(flows.into_iter().filter(|flow| flow.concerns(sockets)).collect())
}

async fn fallback(node: &Node, served: &[SocketAddr], report: &mut Report) -> io::Result<()> {
    if !matches!(node.mode.as_str(), "nftables" | "lease-only") {
        return report.wrong("the fallback is armed", &format!("interception by {} has none", node.mode));
    }
    let found = match Nft::open() {
        Ok(mut nft) => nft.observe().await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("no netlink socket for nf_tables: {error}")),
    };
    for socket in served {
        let own = node.fallback.iter().find(|it| it.address == socket.ip());
        let Some(own) = own else {
            report.note(&format!("fallback for {}", socket.ip()), "kube-proxy's, as without Nodens")?;
            continue;
        };
        let armed = match &found {
            Err(why) => Err(why.clone()),
            Ok(_) if own.servers.is_empty() => Err("no servers: set `node.fallback`, and see its upstream".to_owned()),
            Ok(found) => armed(found, own.address).map(|()| String::new()),
        };
        let armed = match armed {
            Ok(_) => answering(&own.servers).await,
            Err(why) => Err(why),
        };
        report.check(&format!("fallback for {} is armed", own.address), armed)?;
    }
    Ok(())
}

/// Whether the rules of the fallback for `address` are in the kernel.
fn armed(found: &Found, address: IpAddr) -> Result<(), String> {
    if !found.chains.iter().any(|it| it.table == PODS && it.name == HOOK && it.hook.is_some()) {
        return Err(format!("chain inet {PODS} {HOOK} is missing"));
    }
    for transport in ["udp", "tcp"] {
        let about = format!("fallback {transport} for {address} ");
        let comments = found.rules.iter().filter(|it| it.table == PODS && it.chain == SERVERS);
        if !comments.filter_map(|it| it.comment.as_deref()).any(|it| it.contains(&about)) {
            return Err(format!("chain inet {PODS} {SERVERS} has no rule for {transport}"));
        }
    }
    Ok(())
}

/// Those of `servers` that answer anything, asked directly; an error if none does.
async fn answering(servers: &[SocketAddr]) -> Result<String, String> {
    let ask = |server: SocketAddr| async move {
        let question = Question { name: Name::root(), kind: RecordType::NS };
        // Whatever it says, it is there.
        !matches!(question.ask(server).await, Err(AskError::Lost | AskError::Socket(_)))
    };
    let asked: Vec<_> = servers.iter().map(|server| tokio::spawn(ask(*server))).collect();
    let mut silent = Vec::new();
    for (server, asked) in servers.iter().zip(asked) {
        if !asked.await.unwrap_or(false) {
            silent.push(server.to_string());
        }
    }
    match silent.len() {
        0 => Ok(format!("{} servers answer", servers.len())),
        all if all == servers.len() => Err(format!("none of its servers answers: {}", silent.join(", "))),
        some => Ok(format!("{} of {} servers answer, not {}", servers.len() - some, servers.len(), silent.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::nft::{Family, FoundChain, FoundRule};

    fn found(comments: &[&str]) -> Found {
        let chain = FoundChain {
            family: Family::Inet,
            table: PODS.to_owned(),
            name: HOOK.to_owned(),
            kind: "nat".to_owned(),
            hook: Some((0, -101)),
            drops: false,
        };
        let rule = |comment: &&str| FoundRule {
            family: Family::Inet,
            table: PODS.to_owned(),
            chain: SERVERS.to_owned(),
            handle: 1,
            comment: Some((*comment).to_owned()),
            packets: None,
        };
        Found { chains: vec![chain], rules: comments.iter().map(rule).collect(), ..Found::default() }
    }

    #[test]
    fn a_fallback_is_armed_by_its_hook_and_a_rule_for_each_transport() {
        let own = "169.254.20.10".parse().expect("an address");
        let both = ["nodens: fallback udp for 169.254.20.10 [0]", "nodens: fallback tcp for 169.254.20.10 [0]"];
        assert_eq!(armed(&found(&both), own), Ok(()));
        assert!(armed(&found(&both[..1]), own).is_err_and(|why| why.contains("tcp")));
        assert!(armed(&found(&["nodens: fallback udp for 169.254.20.101 [0]"]), own).is_err());
        let unhooked = Found { chains: Vec::new(), ..found(&both) };
        assert!(armed(&unhooked, own).is_err_and(|why| why.contains("missing")));
    }
}
