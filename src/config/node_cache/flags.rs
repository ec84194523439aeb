//! The flags of node-cache, as Go's `flag` reads them: `-name value`, `-name=value`, `--name`, switches without a value.
//!
//! One thing more: `-skipteardown false`. Go takes that for a switch and the end of all flags, without a word.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::corefile::{endpoint, go_duration};
use super::super::suggest::nearest;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    Help,
    Plugins,
    Run,
    Version,
}

/// The flags that mean something, checked.
#[derive(Clone, Debug)]
pub struct Flags {
    pub action: Action,
    /// `-localip`, each once, of either family.
    pub local: Vec<IpAddr>,
    pub sets_up_interface: bool,
    pub interface: String,
    pub sets_up_iptables: bool,
    /// `-metrics-listen-address`; `None` if it is empty.
    pub metrics: Option<SocketAddr>,
    /// `-prometheus-listen-address`, as the template takes it.
    pub prometheus: String,
    pub base_corefile: PathBuf,
    pub conf: PathBuf,
    /// `-kubednscm`, if it is given.
    pub kube_dns: Option<PathBuf>,
    pub upstream_service: String,
    /// `-dns.port`: of zones without one.
    pub port: u16,
    pub pid_file: Option<PathBuf>,
    /// What has no effect and why, a line for each.
    pub remarks: Vec<String>,
}

/// Where node-cache is told about itself.
pub const HELP: &str = "\
Usage of node-cache: Nodens, configured as node-local-dns is.

  -localip ADDRESSES           where to listen, comma-separated, IPv4 and IPv6 mixed
  -basecorefile FILE           the Corefile with its variables (/etc/coredns/Corefile.base)
  -conf FILE                   the same without; what was last accepted is kept here (Corefile)
  -upstreamsvc NAME            the cluster's DNS: a Service by its environment variable or its endpoints, or an IP (kube-dns)
  -kubednscm DIRECTORY         the ConfigMap of kube-dns: stubDomains, upstreamNameservers (/etc/kube-dns, if it is there)
  -setupinterface              put the addresses on a link (true)
  -interfacename NAME          its name (nodelocaldns)
  -setupiptables               intercept the traffic to them, on a lease (true)
  -metrics-listen-address A    /metrics, beside that of the Corefile's `prometheus` (0.0.0.0:9353)
  -prometheus-listen-address A what __PROMETHEUS__ENDPOINT__ stands for (:9253)
  -dns.port PORT, -p PORT      of zones without one (53)
  -pidfile FILE                written when serving, removed at the end
  -version, -plugins           print that and end

Accepted and without effect: -syncinterval -initialdelay -skipteardown -setupebtables -health-port -reloadwithsignal
-corefile -quiet. `nodens import COREFILE --flags \"…\"` prints the nodens.yaml that says the same.
";

const SWITCHES: [&str; 10] = [
    "setupinterface",
    "setupiptables",
    "setupebtables",
    "skipteardown",
    "reloadwithsignal",
    "plugins",
    "quiet",
    "version",
    "h",
    "help",
];
const VALUES: [&str; 15] = [
    "localip",
    "interfacename",
    "syncinterval",
    "initialdelay",
    "metrics-listen-address",
    "prometheus-listen-address",
    "basecorefile",
    "corefile",
    "kubednscm",
    "upstreamsvc",
    "health-port",
    "conf",
    "dns.port",
    "p",
    "pidfile",
];

impl Flags {
    /// Reads arguments, the program's name left out.
    ///
    /// # Errors
    /// Every mistake, a line for each.
    pub fn parse(arguments: &[String]) -> Result<Self, Vec<String>> {
        let mut flags = Self {
            action: Action::Run,
            local: Vec::new(),
            sets_up_interface: true,
            interface: "nodelocaldns".to_owned(),
            sets_up_iptables: true,
            metrics: Some(SocketAddr::from(([0, 0, 0, 0], 9353))),
            prometheus: ":9253".to_owned(),
            base_corefile: "/etc/coredns/Corefile.base".into(),
            conf: "Corefile".into(),
            kube_dns: None,
            upstream_service: "kube-dns".to_owned(),
            port: 53,
            pid_file: None,
            remarks: Vec::new(),
        };
        let mut wrong = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(name) =
                argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).filter(|it| !it.is_empty())
            else {
                if argument != "--" && !argument.is_empty() {
                    wrong.push(format!("`{argument}` is no flag: flags begin with `-`"));
                }
                continue;
            };
            let (name, mut value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            if SWITCHES.contains(&name) {
                if value.is_none()
                    && let Some(next) = rest.as_slice().first()
                    && boolean(next).is_some_and(|_| !matches!(next.as_str(), "0" | "1"))
                {
                    value = rest.next().cloned();
                }
                match value.as_deref().map_or(Some(true), boolean) {
                    Some(on) => flags.switch(name, on),
                    None => wrong.push(format!("-{name}: `{}` is neither true nor false", value.unwrap_or_default())),
                }
            } else if VALUES.contains(&name) {
                match value.or_else(|| rest.next().cloned()) {
                    Some(value) => flags.value(name, &value, &mut wrong),
                    None => wrong.push(format!("-{name} needs a value")),
                }
            } else {
                let all = SWITCHES.into_iter().chain(VALUES);
                let meant = nearest(name, all).map_or(String::new(), |meant| format!("; did you mean -{meant}?"));
                wrong.push(format!("there is no flag -{name}{meant}"));
            }
        }
        if !flags.sets_up_interface && flags.sets_up_iptables {
            flags.remarks.push(
                "-setupinterface=false: without a link of our own nothing is intercepted; whoever asks these addresses is \
                 answered"
                    .to_owned(),
            );
        }
        if wrong.is_empty() { Ok(flags) } else { Err(wrong) }
    }

    fn switch(&mut self, name: &str, on: bool) {
        let action = match name {
            "setupinterface" => {
                self.sets_up_interface = on;
                return;
            }
            "setupiptables" => {
                self.sets_up_iptables = on;
                return;
            }
            "skipteardown" if on => {
                self.remark("-skipteardown: what intercepts traffic is on a lease and ends with it");
                return;
            }
            "setupebtables" if on => {
                self.remark("-setupebtables: no rules of ebtables are needed");
                return;
            }
            "h" | "help" => Action::Help,
            "plugins" => Action::Plugins,
            "version" => Action::Version,
            _ => return,
        };
        if on && self.action == Action::Run {
            self.action = action;
        }
    }

    fn remark(&mut self, what: &str) {
        self.remarks.push(what.to_owned());
    }

    fn value(&mut self, name: &str, value: &str, wrong: &mut Vec<String>) {
        match name {
            "localip" => {
                // Of a flag written twice, Go takes the last.
                self.local.clear();
                // The manifest leaves an empty one behind where kube-proxy runs in IPVS mode.
                for text in value.split([',', ' ']).map(str::trim).filter(|text| !text.is_empty()) {
                    match text.parse::<IpAddr>() {
                        Ok(address) if self.local.contains(&address) => {}
                        Ok(address) => self.local.push(address),
                        Err(_) if text.starts_with("__PILLAR__") => {
                            wrong.push(format!("-localip: `{text}` was left unfilled (sed), such as by 169.254.20.10"));
                        }
                        Err(_) => wrong.push(format!("-localip: `{text}` is no IP address")),
                    }
                }
            }
            "interfacename" => value.clone_into(&mut self.interface),
            "syncinterval" | "initialdelay" => {
                let sane = go_duration(value).is_some() || value.parse::<f64>().is_ok();
                if !sane {
                    self.remarks.push(format!("-{name}: `{value}` is no duration, and none is needed"));
                }
            }
            "metrics-listen-address" => match (value, endpoint(value, &self.local)) {
                ("", _) => self.metrics = None,
                (_, Some(address)) => self.metrics = Some(address),
                (_, None) => wrong.push(format!("-{name}: `{value}` is no place to listen at, such as 0.0.0.0:9353")),
            },
            "prometheus-listen-address" => value.clone_into(&mut self.prometheus),
            "basecorefile" => self.base_corefile = value.into(),
            "conf" => self.conf = value.into(),
            "kubednscm" => self.kube_dns = Some(value).filter(|it| !it.is_empty()).map(PathBuf::from),
            "upstreamsvc" => value.clone_into(&mut self.upstream_service),
            "dns.port" | "p" => match value.parse() {
                Ok(port) if port > 0 => self.port = port,
                _ => wrong.push(format!("-{name}: `{value}` is no port")),
            },
            "pidfile" => self.pid_file = Some(value).filter(|it| !it.is_empty()).map(PathBuf::from),
            // -corefile was always overruled by -conf; the health port is that of `health`.
            _ => {}
        }
    }
}

/// The words of Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, Vec<String>> {
        Flags::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_manifest_s_flags_are_read() {
        let line =
            "-localip 169.254.20.10,10.96.0.10 -conf /etc/Corefile -upstreamsvc kube-dns-upstream -pidfile /tmp/x.pid";
        let flags = parse(line).expect("legal");
        assert_eq!(flags.local.len(), 2);
        assert_eq!(flags.conf, PathBuf::from("/etc/Corefile"));
        assert_eq!((flags.upstream_service.as_str(), flags.port), ("kube-dns-upstream", 53));
        assert!(flags.sets_up_interface && flags.sets_up_iptables);
        assert_eq!(flags.pid_file, Some(PathBuf::from("/tmp/x.pid")));
    }

    #[test]
    fn flags_are_written_in_any_of_go_s_ways() {
        for line in [
            "-skipteardown -p=54",
            "--skipteardown=true --dns.port 54",
            "-skipteardown=T -dns.port=54",
            "-skipteardown true -p 54",
        ] {
            assert_eq!(parse(line).map(|flags| (flags.port, flags.remarks.len())), Ok((54, 1)), "{line}");
        }
        for line in ["-setupiptables=false", "-setupiptables false", "--setupiptables=0", "-setupiptables=F"] {
            assert!(!parse(line).expect("legal").sets_up_iptables, "{line}");
        }
    }

    #[test]
    fn what_crashes_node_cache_is_harmless() {
        let flags = parse("-localip 169.254.20.10,fd00::1,,169.254.20.10 -syncinterval=10s").expect("legal");
        assert_eq!(flags.local.len(), 2);
        for interval in ["60", "3ns", "60s", "1h", "1.5", "0", "-1s", "soon"] {
            assert!(parse(&format!("-syncinterval={interval}")).is_ok(), "{interval}");
        }
        assert!(parse("-health-port x -corefile /nowhere -reloadwithsignal -quiet").is_ok());
        assert_eq!(parse("-metrics-listen-address=").expect("legal").metrics, None);
    }

    #[test]
    fn the_last_of_two_counts() {
        let flags = parse("-localip 10.0.0.1 -p 1 -localip 10.0.0.2 -p 2").expect("legal");
        assert_eq!((flags.local, flags.port), (vec!["10.0.0.2".parse().expect("legal")], 2));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let wrong = parse("-localip 10.0.0.300 -p 0 -skipteardown=maybe -upstreamscv x run").expect_err("all wrong");
        assert_eq!(wrong.len(), 6, "{wrong:?}");
        assert!(wrong[3].contains("did you mean -upstreamsvc"), "{wrong:?}");
        assert!(parse("-localip").is_err());
        assert!(parse("-localip __PILLAR__LOCAL__DNS__").expect_err("unfilled")[0].contains("unfilled"));
    }

    #[test]
    fn some_flags_ask_for_something_else() {
        for (line, action) in [
            ("-version", Action::Version),
            ("-plugins", Action::Plugins),
            ("-h", Action::Help),
            ("-version=false", Action::Run),
        ] {
            assert_eq!(parse(line).expect("legal").action, action);
        }
    }

    #[test]
    fn every_flag_is_in_the_help() {
        for name in SWITCHES.into_iter().chain(VALUES).filter(|name| !matches!(*name, "h" | "help")) {
            assert!(HELP.contains(&format!("-{name}")), "-{name}");
        }
    }
}
