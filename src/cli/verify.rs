//! `nodens verify`: the gate after an apply. Every check is made from outside, as a client would; a line for each.
//!
//! ```text
//! status of the agent ─► every address, UDP and TCP, with proof that Nodens answers
//!                     ─► every zone with an upstream, by a name nobody has asked for
//!                     ─► the kernel: no flow to our addresses tracked meanwhile, fallback armed
//! --from-pod: no agent to talk to, only the servers that this pod asks
//! ```

mod addresses;
mod kernel;
mod report;
mod zones;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::Exit;
use super::agent::{Agent, Trouble, ask_status};
use crate::control::status::Status;
use crate::discover::read_resolv_conf;
use kernel::Kernel;
use report::{Report, Verdict};

/// Where pods find their servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The port pods ask at.
const DNS: u16 = 53;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens verify                              on the node, as root
  nodens verify -c nodens.yaml               the agent that this file configures
  nodens verify --from-pod                   in a pod: the servers of its /etc/resolv.conf
  nodens verify --from-pod 169.254.20.10     in a pod: this one

Checks: the agent is ready; every address answers over UDP and TCP, and it is Nodens who answers; each zone's upstream
answers a name nobody has asked for; connection tracking holds nothing of it; the fallback is armed and answers.
In a pod: the addresses alone. It changes nothing but the cache, by one unknown name for each zone.

Exit codes: 0 all is right; 1 a check failed; 3 the agent cannot be reached.")]
pub(super) struct Args {
    /// Check from inside a pod, without an agent to talk to.
    #[arg(long)]
    from_pod: bool,
    /// What to ask in a pod; left out: the servers in /etc/resolv.conf.
    #[arg(value_name = "ADDRESS", requires = "from_pod", value_parser = server)]
    addresses: Vec<SocketAddr>,
    #[command(flatten)]
    agent: Agent,
}

/// `ADDRESS` or `ADDRESS:PORT`, as in an upstream's `servers`.
fn server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS));
    address.or_else(|_| text.parse()).map_err(|_| "an address, with or without a port, is wanted".to_owned())
}

pub(super) fn execute(args: &Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("nodens verify: {error}");
            return Exit::Failed;
        }
    };
    let mut report = Report::new(anstream::stdout());
    let checked = if args.from_pod {
        runtime.block_on(from_pod(args, &mut report))
    } else {
        runtime.block_on(on_the_node(args, &mut report))
    };
    match checked.and_then(|()| Ok(report.end()?)) {
        Ok(Verdict::Right) => Exit::Done,
        Ok(Verdict::Wrong) => Exit::Failed,
        Err(trouble) => trouble.report(),
    }
}

async fn from_pod(args: &Args, report: &mut Report) -> Result<(), Trouble> {
    let mut servers = args.addresses.clone();
    if servers.is_empty() {
        match read_resolv_conf(Path::new(RESOLV_CONF)).await {
            Ok(found) => servers.extend(found.into_iter().map(|ip| SocketAddr::new(ip, DNS))),
            Err(error) => report.wrong("this pod's servers", &format!("{RESOLV_CONF}: {error}"))?,
        }
        if servers.is_empty() {
            report.wrong("this pod's servers", &format!("{RESOLV_CONF} names none"))?;
        }
    }
    Ok(addresses::check(&servers, report)?)
}

async fn on_the_node(args: &Args, report: &mut Report) -> Result<(), Trouble> {
    let status = ask_status(&args.agent.socket()?)?;
    if status.ready {
        report.right("the agent is ready", "")?;
    } else {
        report.wrong("the agent is ready", &status.missing.join("; "))?;
    }
    let kernel = Kernel::look(&status).await;
    let served: Vec<SocketAddr> = status.listen.iter().copied().filter(|it| is_served(&status, it.ip())).collect();
    for left in status.listen.iter().filter(|it| !served.contains(it)) {
        report.note(&left.to_string(), "left to the cluster DNS on this host; `nodens status` says why")?;
    }
    addresses::check(&served, report)?;
    match served.first() {
        Some(agent) => zones::check(&status, *agent, report).await?,
        None => report.wrong("zones", "there is no address to ask at")?,
    }
    Ok(kernel.check(&status, &served, report).await?)
}

/// Whether the agent serves an address, or leaves it to others on this host.
fn is_served(status: &Status, address: IpAddr) -> bool {
    status.node.as_ref().is_none_or(|node| node.addresses.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        for (text, address) in [
            ("169.254.20.10", "169.254.20.10:53"),
            ("127.0.0.1:1053", "127.0.0.1:1053"),
            ("fd00::a", "[fd00::a]:53"),
            ("[fd00::a]:54", "[fd00::a]:54"),
        ] {
            assert_eq!(server(text).map(|it| it.to_string()).as_deref(), Ok(address));
        }
        assert!(server("kube-dns").is_err());
    }
}
