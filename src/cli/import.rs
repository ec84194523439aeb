//! `nodens import`: a Corefile as the `nodens.yaml` that says the same.
//!
//! What differs is a comment in it; what cannot be carried over is named on standard error, and the exit code is 1.

use std::path::PathBuf;

use super::Exit;
use super::node_cache::{self, NAMESPACE};
use crate::config::corefile::{self, Settings};
use crate::config::node_cache::{Flags, KubeDns, settings};
use crate::plan::Plan;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens import Corefile > nodens.yaml
  nodens import Corefile.base --flags \"-localip 169.254.20.10,10.96.0.10 -upstreamsvc kube-dns-upstream\"
  nodens import Corefile | nodens check -c -

Exit codes:
  0  everything is carried over; comments say where Nodens differs
  1  something is not; it is named on standard error, and the rest is on standard output")]
pub(super) struct Args {
    /// The Corefile, or node-cache's template of one.
    #[arg(value_name = "COREFILE")]
    corefile: PathBuf,
    /// The flags node-cache runs with, such as "-localip 169.254.20.10 -upstreamsvc kube-dns-upstream".
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    flags: Option<String>,
}

pub(super) fn execute(args: &Args) -> Exit {
    let (settings, mut comments) = match said_by_flags(args.flags.as_deref()) {
        Ok(said) => said,
        Err(wrong) => {
            for line in wrong {
                anstream::eprintln!("--flags: {line}");
            }
            return Exit::Failed;
        }
    };
    let reading = node_cache::read(&args.corefile, &settings, &|interface| {
        // Those of the host where this runs say nothing about the one it is for.
        interface.map_or_else(Vec::new, |name| node_cache::addresses(Some(name)))
    });
    let reading = match reading {
        Ok(reading) => reading,
        Err(errors) => {
            anstream::eprintln!("{errors}");
            return Exit::Failed;
        }
    };
    comments.insert(0, format!("From {} by `nodens import`.", args.corefile.display()));
    if !reading.remarks.is_empty() {
        comments.push("What Nodens does otherwise:".to_owned());
    }
    comments.extend(reading.remarks.iter().map(|remark| format!("- {remark}")));
    let lost = reading.errors.is_some();
    if let Some(errors) = reading.errors {
        comments
            .push("Not carried over, and named by `nodens import`: what is wrong or not in this version.".to_owned());
        anstream::eprintln!("{errors}");
    }
    match Plan::new(reading.draft) {
        Ok(plan) => super::print(corefile::yaml(&plan, &comments)),
        // What is left says too little; why is on standard error.
        Err(_) => return Exit::Failed,
    }
    if lost { Exit::Failed } else { Exit::Done }
}

/// What the flags come to, and what is to be said about them.
fn said_by_flags(flags: Option<&str>) -> Result<(Settings, Vec<String>), Vec<String>> {
    let Some(flags) = flags else { return Ok((Settings::default(), Vec::new())) };
    let words: Vec<String> = flags.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    let flags = Flags::parse(&words)?;
    let kube_dns = match &flags.kube_dns {
        Some(directory) => KubeDns::read(directory, &|path| std::fs::read(path)).map_err(|wrong| vec![wrong])?,
        None => KubeDns::default(),
    };
    // The environment is that of the pods, not ours.
    let settings = settings(&flags, &kube_dns, NAMESPACE, &|_| None);
    Ok((settings, flags.remarks))
}
