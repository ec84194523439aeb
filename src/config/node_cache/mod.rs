//! What node-cache is told beside its Corefile: flags, the template's variables, the ConfigMap of kube-dns.
//!
//! ```text
//! flags ──────────┐
//! environment ────┼─► Settings ─► corefile::read
//! /etc/kube-dns ──┘
//! ```
//! What made node-cache crash or fall silent is harmless here: IPv4 beside IPv6, an interval without a unit, a Service
//! without an address, a flag that means nothing.
//!
//! Read first: `incumbent.md` sections 1.1, 1.2 and 1.6.

mod flags;
mod kube_dns;

use std::net::{IpAddr, SocketAddr};

use super::corefile::{CLUSTER_DNS, NodeSettings, Settings, UPSTREAM_SERVERS};
use crate::plan::Interception;

pub use flags::{Action, Flags, HELP};
pub use kube_dns::KubeDns;

const LOCAL_DNS: &str = "__PILLAR__LOCAL__DNS__";
const DNS_SERVER: &str = "__PILLAR__DNS__SERVER__";
const PROMETHEUS: &str = "__PROMETHEUS__ENDPOINT__";
/// Where messages say a stub domain comes from.
const STUB_DOMAINS: &str = "stubDomains of the kube-dns ConfigMap";

/// What a template says together with `flags` and `kube_dns`.
///
/// `env` gives the address of `-upstreamsvc`, as Kubernetes puts it into the environment of pods. Without one it is a
/// Service of `namespace` whose endpoints are followed, as it must be where the Service is headless.
pub fn settings(flags: &Flags, kube_dns: &KubeDns, namespace: &str, env: &dyn Fn(&str) -> Option<String>) -> Settings {
    let local: Vec<String> = flags.local.iter().map(ToString::to_string).collect();
    let upstreams = match kube_dns.upstream_nameservers.as_slice() {
        [] => "/etc/resolv.conf".to_owned(),
        chosen => chosen.join(" "),
    };
    let variables = vec![
        (CLUSTER_DNS, cluster_dns(&flags.upstream_service, namespace, env)),
        (UPSTREAM_SERVERS, upstreams),
        (LOCAL_DNS, local.join(" ")),
        (DNS_SERVER, String::new()),
        (PROMETHEUS, flags.prometheus.clone()),
    ];
    let node = flags.sets_up_interface.then(|| NodeSettings {
        interface: flags.interface.clone(),
        interception: if flags.sets_up_iptables { Interception::Auto } else { Interception::Off },
    });
    Settings {
        local: flags.local.clone(),
        port: flags.port,
        variables,
        more: Some((stub_blocks(kube_dns, flags.port), STUB_DOMAINS)),
        chosen_upstreams: !kube_dns.upstream_nameservers.is_empty(),
        node,
        metrics: flags.metrics,
    }
}

/// The server blocks of stub domains, in the words of node-cache.
fn stub_blocks(kube_dns: &KubeDns, port: u16) -> String {
    let block = |(domain, servers): (&String, &Vec<String>)| {
        format!("\n{domain}:{port} {{\n    errors\n    cache 30\n    forward . {}\n}}\n", servers.join(" "))
    };
    kube_dns.stub_domains.iter().map(block).collect()
}

/// `template` with its variables filled in and the stub domains behind it, as node-cache writes it to `-conf`.
pub fn rendered(template: &str, settings: &Settings) -> String {
    let mut text = template.to_owned();
    for (name, value) in &settings.variables {
        text = text.replace(name, value);
    }
    text + settings.more.as_ref().map_or("", |(blocks, _)| blocks)
}

/// What `-upstreamsvc` stands for: an address, or `service://NAMESPACE/NAME`.
fn cluster_dns(service: &str, namespace: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    if service.parse::<IpAddr>().is_ok() || service.parse::<SocketAddr>().is_ok() {
        return service.to_owned();
    }
    if service.contains('/') {
        return format!("service://{service}");
    }
    // The environment variables of a Service: its name in capitals, `-` as `_`.
    let variable = format!("{}_SERVICE_HOST", service.to_ascii_uppercase().replace('-', "_"));
    match env(&variable).filter(|value| value.parse::<IpAddr>().is_ok()) {
        Some(address) => address,
        None => format!("service://{namespace}/{service}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_service_is_an_address_or_its_endpoints() {
        let env = |name: &str| match name {
            "KUBE_DNS_UPSTREAM_SERVICE_HOST" => Some("10.96.7.7".to_owned()),
            "HEADLESS_SERVICE_HOST" => Some("None".to_owned()),
            _ => None,
        };
        for (service, meant) in [
            ("kube-dns-upstream", "10.96.7.7"),
            ("headless", "service://kube-system/headless"),
            ("missing", "service://kube-system/missing"),
            ("dns/other", "service://dns/other"),
            ("10.0.0.1", "10.0.0.1"),
            ("127.0.0.1:5301", "127.0.0.1:5301"),
        ] {
            assert_eq!(cluster_dns(service, "kube-system", &env), meant);
        }
    }

    #[test]
    fn variables_are_filled_in_and_stub_domains_follow() {
        let flags = Flags::parse(&["-localip".into(), "10.0.0.1,10.0.0.2".into()]).expect("legal");
        let stub_domains = [("acme.local".to_owned(), vec!["1.2.3.4".to_owned()])].into();
        let kube_dns = KubeDns { stub_domains, upstream_nameservers: vec!["8.8.8.8".to_owned()] };
        let settings = settings(&flags, &kube_dns, "kube-system", &|_| None);
        let text = rendered(
            "bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\nforward . __PILLAR__UPSTREAM__SERVERS__\n",
            &settings,
        );
        assert_eq!(
            text,
            "bind 10.0.0.1 10.0.0.2 \nforward . 8.8.8.8\n\nacme.local:53 {\n    errors\n    cache 30\n    forward . 1.2.3.4\n}\n"
        );
    }
}
