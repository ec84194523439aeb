//! What counts as a change of a file, links swapped as the kubelet does it included.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::discover::testing::beside;

#[test]
fn change_in_each_way_is_told() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("file");
    let other = directory.path().join("other");
    on_runtime(async {
        let mut watcher = FileWatcher::new(&path).expect("the directory is there");
        assert!(!told(&mut watcher).await, "nothing has happened");
        fs::write(&path, "1").expect("written");
        assert!(told(&mut watcher).await, "made");
        fs::write(&path, "2").expect("written");
        assert!(told(&mut watcher).await, "written");
        fs::write(&other, "3").expect("written");
        while told(&mut watcher).await {}
        fs::rename(&other, &path).expect("renamed");
        assert!(told(&mut watcher).await, "replaced");
        fs::remove_file(&path).expect("removed");
        assert!(told(&mut watcher).await, "removed");
    });
}

/// The stub that many distributions have: /etc/resolv.conf is a symlink into another directory.
#[test]
fn change_at_the_end_of_a_symlink_is_told_also_after_it_moved() {
    let [near, far, farther] = [(); 3].map(|()| tempfile::tempdir().expect("a directory can be made"));
    let path = near.path().join("link");
    symlink(far.path().join("file"), &path).expect("linked");
    fs::write(far.path().join("file"), "1").expect("written");
    on_runtime(async {
        let mut watcher = FileWatcher::new(&path).expect("the directory is there");
        fs::write(far.path().join("file"), "2").expect("written");
        assert!(told(&mut watcher).await, "written");

        fs::write(farther.path().join("file"), "3").expect("written");
        fs::remove_file(&path).expect("removed");
        symlink(farther.path().join("file"), &path).expect("linked");
        while told(&mut watcher).await {}
        fs::write(farther.path().join("file"), "4").expect("written");
        assert!(told(&mut watcher).await, "written at the new end");
    });
}

#[test]
fn file_in_no_directory_is_an_error() {
    on_runtime(async {
        let error = FileWatcher::new(Path::new("/nowhere/file")).err().map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::NotFound));
    });
}

async fn told(watcher: &mut FileWatcher) -> bool {
    timeout(Duration::from_millis(200), watcher.changed()).await.is_ok_and(|changed| changed.is_ok())
}

fn on_runtime(test: impl Future<Output = ()>) {
    beside(std::future::pending(), test);
}
