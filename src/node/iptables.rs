//! The fallback where `nf_tables` is missing: permanent rules by the `iptables` program.
//!
//! Twelve rules an address in `raw` and `filter`, those of `node-cache`, under a comment of our own. They are no lease:
//! after a SIGKILL they stay and nobody answers until an instance of us is back. Each is there once, whatever happened
//! before; all that carry our comment are found and removed. This is the one place where we start other programs, and where
//! the xtables lock may be taken, for at most `LOCK_SECONDS` each time.
//!
//! The order makes half a state harmless: first the replies and what the host's firewall must let in, last the rules that
//! draw queries to us; removal goes the other way.
//!
//! Read first: iptables(8), iptables-extensions(8) on NOTRACK and comment.

mod rule;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::process::Output;

use iptables::IPTables;

pub use rule::{Chain, Ports, Rule};

/// What marks our rules. `iptables-save` prints it.
pub const COMMENT: &str = "nodens";
/// Longest wait for the xtables lock, per rule.
const LOCK_SECONDS: u32 = 5;
/// Exit code of `iptables -C` if there is no such rule, and of every other complaint about rules.
const NO_SUCH_RULE: i32 = 1;

/// Both programs. The second is looked for only when an address needs it.
pub struct Iptables {
    programs: [Option<IPTables>; 2],
}

impl Iptables {
    /// Looks for the programs that `addresses` need, and asks them for their version.
    ///
    /// # Errors
    /// If one is not there or does not run.
    pub fn open(addresses: &[IpAddr]) -> Result<Self, IptablesError> {
        let open = |family: Family| {
            let needed = addresses.iter().any(|it| Family::of(*it) == family);
            if needed { family.open().map(Some) } else { Ok(None) }
        };
        Ok(Self { programs: [open(Family::V4)?, open(Family::V6)?] })
    }

    /// Whatever programs there are, for [`Iptables::remove`] by somebody who does not know what an earlier life did.
    pub fn found() -> Self {
        Self { programs: [Family::V4.open().ok(), Family::V6.open().ok()] }
    }

    /// Makes sure that every rule for `addresses` is there once, and no other rule of ours.
    ///
    /// # Errors
    /// Names the rule. What this call had put there before is taken back; what was there stays.
    pub fn ensure(&self, addresses: &[IpAddr], ports: &Ports) -> Result<Ensured, IptablesError> {
        let wanted: Vec<Rule> = Rule::order(addresses, ports);
        let mut done = Ensured::default();
        let result = self.apply(&wanted, &mut done);
        if result.is_err() {
            for rule in done.added.iter().rev() {
                // The first error is the one to tell.
                let _ = self.execute(Family::of(rule.address), rule.chain, &format!("-D {} {rule}", rule.chain.name()));
            }
        }
        result.map(|()| done)
    }

    /// Removes every rule of ours, also those of an earlier life and for addresses not known any more.
    ///
    /// Returns how many there were.
    ///
    /// # Errors
    /// Names the step; a second call goes on from there.
    pub fn remove(&self) -> Result<usize, IptablesError> {
        let mut removed = 0;
        for chain in Chain::ALL.into_iter().rev() {
            for family in self.families() {
                for line in self.list(family, chain)? {
                    self.execute(family, chain, &line.to_delete())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn apply(&self, wanted: &[Rule], done: &mut Ensured) -> Result<(), IptablesError> {
        let mut missing: Vec<&Rule> = wanted.iter().collect();
        for chain in Chain::ALL {
            for family in self.families() {
                for line in self.list(family, chain)? {
                    // A line we cannot read is left to `remove`: taking it away here and finding its rule missing would
                    // take it away again the next time.
                    let Some(rule) = line.rule(chain) else { continue };
                    if let Some(at) = missing.iter().position(|it| **it == rule) {
                        missing.remove(at);
                    } else {
                        self.execute(family, chain, &line.to_delete())?;
                        done.removed += 1;
                    }
                }
            }
        }
        for rule in missing {
            let family = Family::of(rule.address);
            let check = format!("-C {} {rule}", rule.chain.name());
            let output = self.run(family, rule.chain, &check)?;
            match output.status.code() {
                Some(0) => continue,
                Some(NO_SUCH_RULE) => {}
                _ => return Err(refusal(family, rule.chain, &check, complaint(&output))),
            }
            self.execute(family, rule.chain, &format!("-I {} 1 {rule}", rule.chain.name()))?;
            done.added.push(*rule);
        }
        Ok(())
    }

    /// Our rules in a chain, as the program prints them.
    fn list(&self, family: Family, chain: Chain) -> Result<Vec<rule::Line>, IptablesError> {
        let output = self.execute(family, chain, &format!("-S {}", chain.name()))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(rule::Line::of_ours).collect())
    }

    /// Runs one command that has to succeed.
    fn execute(&self, family: Family, chain: Chain, command: &str) -> Result<Output, IptablesError> {
        let output = self.run(family, chain, command)?;
        if output.status.success() { Ok(output) } else { Err(refusal(family, chain, command, complaint(&output))) }
    }

    /// Runs one command to its end, whatever that is.
    fn run(&self, family: Family, chain: Chain, command: &str) -> Result<Output, IptablesError> {
        let fail = |reason| refusal(family, chain, command, reason);
        let program = self.programs[family as usize].as_ref();
        let program = program.ok_or_else(|| fail("the program was not looked for".to_owned()))?;
        let command = format!("{command} -w {LOCK_SECONDS}");
        program.execute(chain.table(), &command).map_err(|error: Box<dyn Error>| fail(error.to_string()))
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6].into_iter().filter(|it| self.programs[*it as usize].is_some())
    }
}

fn refusal(family: Family, chain: Chain, command: &str, reason: String) -> IptablesError {
    IptablesError { step: format!("run `{} -t {} {command}`", family.program(), chain.table()), reason }
}

/// What the program said, on one line.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    if said.is_empty() { output.status.to_string() } else { said }
}

/// What [`Iptables::ensure`] changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ensured {
    pub added: Vec<Rule>,
    /// Second copies, and rules for what is no longer wanted.
    pub removed: usize,
}

/// Which program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn open(self) -> Result<IPTables, IptablesError> {
        let mut program = iptables::new(self == Self::V6).map_err(|error| IptablesError {
            step: format!("run `{} --version`", self.program()),
            reason: error.to_string(),
        })?;
        // The crate would wait for the lock for ever; `run` says for how long.
        program.has_wait = false;
        Ok(program)
    }

    fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

// === impl IptablesError ===

/// A step that the program refused, in its own words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IptablesError {
    /// What was being done, in words that fit behind "could not".
    pub step: String,
    pub reason: String,
}

impl fmt::Display for IptablesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.step, self.reason)
    }
}

impl Error for IptablesError {}
