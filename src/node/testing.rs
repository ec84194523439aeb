//! A network namespace for a test of its own, and the eyes of other programs in it.

use std::env;
use std::future::Future;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

/// Longest wait for anything in a test.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in an empty network namespace with `lo` up. Programs it starts are in there too.
///
/// Without the right to make one it is skipped aloud, or fails if `NODENS_NO_SKIP=1` says that nothing may be skipped.
pub(super) fn in_a_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let body = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip(&format!("no network namespace for the test: {error}"));
        }
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE * 4, test()).await.expect("the test ends") });
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says aloud why a test does not run, or fails where nothing may be skipped.
pub(super) fn skip(reason: &str) {
    assert!(env::var_os("NODENS_NO_SKIP").is_none_or(|it| it != "1"), "may not be skipped, but {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Says to a test in a second process of this program that it is where it may do its worst.
const CHILD: &str = "NODENS_TEST_CHILD";

/// The command that runs one ignored test of this program in a process of its own, started by `starter` if there is one.
pub(super) fn child(starter: &[&str], test: &str) -> Command {
    let itself = env::current_exe().expect("this program").display().to_string();
    let words = [starter, &[&itself, "--exact", test, "--ignored", "--nocapture"]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env(CHILD, "1");
    command
}

/// Whether this is such a process. Anybody can run ignored tests; on a host they would leave their marks.
pub(super) fn is_a_child() -> bool {
    let answer = env::var_os(CHILD).is_some();
    if !answer {
        eprintln!("part of another test, which runs it in a namespace");
    }
    answer
}

/// Runs one ignored test in an empty network namespace and without the right to change anything there.
pub(super) fn run_without_net_admin(test: &str) {
    let starter = ["unshare", "--net", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let output = match child(&starter, test).output() {
        Ok(output) => output,
        Err(error) => return skip(&format!("`unshare` does not run: {error}")),
    };
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if complained.contains("unshare failed") || complained.contains("setpriv:") {
        return skip(&complained);
    }
    assert!(output.status.success() && said.contains("1 passed"), "{complained}{said}");
}

/// Runs a program to its end; words are split at blanks. Its output, which is UTF-8.
pub(super) fn run(command: &str) -> String {
    try_run(command).unwrap_or_else(|error| panic!("`{command}`: {error}"))
}

/// The same, with its complaint if it fails.
pub(super) fn try_run(command: &str) -> Result<String, String> {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8(output.stdout).expect("UTF-8"))
}
