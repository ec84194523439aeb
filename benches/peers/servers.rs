//! The servers that are compared, and how each is told to do the same: one thread, a cache for all names of the run, one
//! upstream, no validation. Everything else is as it comes.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::echo;

/// What kind of server it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Coredns,
    Dnsdist,
    Dnsmasq,
    Echo,
    Knot,
    Nodens,
    Unbound,
}

/// A server, and where it is installed.
pub struct Server {
    pub name: &'static str,
    pub kind: Kind,
    pub program: Option<PathBuf>,
}

impl Server {
    /// All that could be compared, in the order of the table.
    pub fn found() -> Vec<Self> {
        let only = env::var("NODENS_BENCH_ONLY").ok();
        let wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|it| it == name));
        let nodens = env::var_os("NODENS_BENCH_BIN").map_or(PathBuf::from(env!("CARGO_BIN_EXE_nodens")), PathBuf::from);
        let all = [
            ("echo", Kind::Echo, env::current_exe().ok()),
            ("nodens", Kind::Nodens, Some(nodens)),
            ("dnsdist", Kind::Dnsdist, find("dnsdist")),
            ("unbound", Kind::Unbound, find("unbound")),
            ("knot", Kind::Knot, find("kresd")),
            ("dnsmasq", Kind::Dnsmasq, find("dnsmasq")),
            ("coredns", Kind::Coredns, env::var_os("NODENS_BENCH_COREDNS").map(PathBuf::from)),
        ];
        let wanted = all.into_iter().filter(|(name, ..)| wanted(name));
        wanted.map(|(name, kind, program)| Self { name, kind, program }).collect()
    }

    /// How to start it on `port` of 127.0.0.1; its configuration is written to `folder`.
    pub fn command(&self, port: u16, upstream: u16, folder: &Path) -> io::Result<Command> {
        let program = self.program.as_ref().expect("servers that are not installed are left out");
        let mut command = Command::new(program);
        let file = folder.join("config");
        let config = self.config(port, upstream, folder);
        if !config.is_empty() {
            fs::write(&file, config)?;
        }
        match self.kind {
            Kind::Coredns => command.arg("-conf").arg(&file).env("GOMAXPROCS", "1"),
            Kind::Dnsdist => command.args(["--supervised", "--disable-syslog", "-C"]).arg(&file),
            Kind::Dnsmasq => command.args(["--keep-in-foreground", "--user=root", "-C"]).arg(&file),
            Kind::Echo => command.args([echo::COMMAND, &port.to_string()]),
            Kind::Knot => command.args(["--noninteractive", "-c"]).arg(&file).arg(folder),
            Kind::Nodens => command.args(["run", "-c"]).arg(&file),
            Kind::Unbound => command.args(["-d", "-c"]).arg(&file),
        };
        Ok(command)
    }

    fn config(&self, port: u16, upstream: u16, folder: &Path) -> String {
        let folder = folder.display();
        match self.kind {
            Kind::Echo => String::new(),
            Kind::Nodens => format!(
                "listen: {{ addresses: [127.0.0.1], port: {port}, workers: 1 }}\n\
                 upstreams: {{ bench: {{ servers: [\"127.0.0.1:{upstream}\"] }} }}\n\
                 zones: {{ \".\": {{ upstream: bench }} }}\n\
                 cache: {{ memory: 512MiB }}\n\
                 http: {{ control: {folder}/control }}\n"
            ),
            Kind::Dnsdist => format!(
                "setLocal('127.0.0.1:{port}')\n\
                 setMaxUDPOutstanding(65535)\n\
                 newServer({{address='127.0.0.1:{upstream}', healthCheckMode='up', sockets=4}})\n\
                 getServer(0):setUp()\n\
                 getPool(''):setCache(newPacketCache(1000000, {{maxTTL=86400}}))\n"
            ),
            Kind::Unbound => format!(
                "server:\n num-threads: 1\n interface: 127.0.0.1\n port: {port}\n do-daemonize: no\n username: \"\"\n \
                 chroot: \"\"\n directory: \"{folder}\"\n pidfile: \"\"\n use-syslog: no\n logfile: \"{folder}/log\"\n \
                 access-control: 127.0.0.0/8 allow\n do-not-query-localhost: no\n module-config: \"iterator\"\n \
                 msg-cache-size: 256m\n rrset-cache-size: 256m\n outgoing-range: 8192\n \
                 num-queries-per-thread: 4096\nremote-control:\n control-enable: no\nforward-zone:\n name: \".\"\n \
                 forward-addr: 127.0.0.1@{upstream}\n"
            ),
            Kind::Knot => format!(
                "net.listen('127.0.0.1', {port})\ncache.size = 256*MB\ntrust_anchors.remove('.')\n\
                 policy.add(policy.all(policy.STUB('127.0.0.1@{upstream}')))\n"
            ),
            Kind::Dnsmasq => format!(
                "listen-address=127.0.0.1\nport={port}\nbind-interfaces\nno-resolv\nno-hosts\n\
                 server=127.0.0.1#{upstream}\ncache-size=1000000\ndns-forward-max=4096\npid-file={folder}/pid\n"
            ),
            Kind::Coredns => format!(
                ".:{port} {{\n bind 127.0.0.1\n cache 3600 {{\n success 1000000\n }}\n forward . 127.0.0.1:{upstream}\n}}\n"
            ),
        }
    }
}

/// Where a program is installed. Debian keeps servers where users have no PATH to.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
