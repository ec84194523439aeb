//! Files as people have them.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::discover::testing::{Recorder, beside, socket};

/// Less than [`REREAD`]: whoever is done by then has been told by the kernel.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn servers_are_read_and_nothing_else() {
    let text = b"# node\nsearch a.test -- \xff\noptions ndots:5\nnameserver 192.0.2.1\n\tnameserver 192.0.2.9\n\
        nameserver\t2001:db8::1 # comment\nnameserver nonsense\nnameservers 192.0.2.8\nnameserver 192.0.2.2";
    let expected: Vec<IpAddr> =
        ["192.0.2.1", "2001:db8::1", "192.0.2.2"].iter().map(|ip| ip.parse().expect("an address")).collect();
    assert_eq!(parse(text), expected);
}

#[test]
fn file_without_servers_has_none() {
    for text in ["", "\n\n", "search a.test\n", "#nameserver 192.0.2.1\n", "nameserver\n", "nameserver \0\n"] {
        assert!(parse(text.as_bytes()).is_empty(), "{text:?}");
    }
}

/// H18: the file is written anew.
#[test]
fn written_file_is_followed() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("resolv.conf");
    fs::write(&path, "nameserver 192.0.2.1\n").expect("written");
    let recorder = Recorder::default();
    beside(follow(&path, 53, &recorder), async {
        recorder.until(|recorder| recorder.last() == Some(vec![socket("192.0.2.1:53")])).await;
        fs::write(&path, "nameserver 192.0.2.2\n").expect("written");
        let seen = recorder.until(|recorder| recorder.last() == Some(vec![socket("192.0.2.2:53")]));
        timeout(AT_ONCE, seen).await.expect("the kernel tells");
    });
}

/// H18: Kubernetes swaps the symlink `..data` beside the symlink that is the file.
#[test]
fn swapped_config_map_is_followed() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mount = directory.path();
    let version = |name: &str, text: &str| {
        fs::create_dir(mount.join(name)).expect("made");
        fs::write(mount.join(name).join("resolv.conf"), text).expect("written");
        symlink(name, mount.join("..data_tmp")).expect("linked");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("swapped");
    };
    version("..1", "nameserver 192.0.2.1\n");
    symlink("..data/resolv.conf", mount.join("resolv.conf")).expect("linked");
    let recorder = Recorder::default();
    let path = mount.join("resolv.conf");
    beside(follow(&path, 853, &recorder), async {
        recorder.until(|recorder| recorder.last() == Some(vec![socket("192.0.2.1:853")])).await;
        for turn in 2..5 {
            version(&format!("..{turn}"), &format!("nameserver 192.0.2.{turn}\n"));
            fs::remove_dir_all(mount.join(format!("..{}", turn - 1))).expect("removed");
            let expected = vec![socket(&format!("192.0.2.{turn}:853"))];
            let seen = recorder.until(|recorder| recorder.last() == Some(expected.clone()));
            timeout(AT_ONCE, seen).await.expect("the kernel tells");
        }
    });
}

#[test]
fn missing_file_is_reported_once_and_awaited() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("resolv.conf");
    let recorder = Recorder::default();
    beside(follow(&path, 53, &recorder), async {
        recorder.until(|recorder| !recorder.events.borrow().is_empty()).await;
        // Turmoil in the directory: read again, not reported again.
        for name in ["a", "b", "c"] {
            fs::write(directory.path().join(name), "").expect("written");
            sleep(2 * PAUSE).await;
        }
        fs::write(&path, "nameserver 192.0.2.1\n").expect("written");
        let seen = recorder.until(|recorder| recorder.last() == Some(vec![socket("192.0.2.1:53")]));
        timeout(AT_ONCE, seen).await.expect("the kernel tells");
        let expected = DiscoverEvent::Unreadable { path: path.clone(), kind: io::ErrorKind::NotFound };
        assert_eq!(*recorder.events.borrow(), [expected]);
    });
}

/// A directory that is not there yet cannot be watched; it is said, and the file is looked for all the same.
#[test]
fn unwatchable_file_is_reported() {
    let recorder = Recorder::default();
    beside(follow(Path::new("/nowhere/resolv.conf"), 53, &recorder), async {
        recorder.until(|recorder| recorder.events.borrow().len() == 2).await;
        let labels: Vec<_> = recorder.events.borrow().iter().map(DiscoverEvent::label).collect();
        assert_eq!(labels, ["unwatched", "unreadable"]);
    });
}
