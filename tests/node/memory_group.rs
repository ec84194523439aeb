//! A cgroup with little memory, of either version.
//!
//! In version 2 a group that limits its children may hold no processes itself, and the controller has to be handed down:
//! so the group is made below the first of our ancestors that hands `memory` down (`cgroup.subtree_control`).
//!
//! Read first: `Documentation/admin-guide/cgroup-v2.rst` of the kernel, "No Internal Process Constraint".

use std::fs;
use std::path::{Path, PathBuf};

/// A group of our own. Dropped, it is removed once its processes have ended.
pub struct MemoryGroup {
    directory: PathBuf,
}

// === impl MemoryGroup ===

impl MemoryGroup {
    /// Makes one that may use `limit`, as `128M`.
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn new(limit: &str) -> Result<Self, String> {
        let ours = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let (parent, file) = ours.lines().find_map(place).ok_or("no cgroup of ours can limit memory")?;
        let group = Self { directory: parent.join(format!("nodens-test-{}", std::process::id())) };
        let make = || {
            fs::create_dir(&group.directory)?;
            fs::write(group.directory.join(file), limit)
        };
        make().map_err(|error| format!("no cgroup at {}: {error}", group.directory.display()))?;
        Ok(group)
    }

    /// The file that takes the numbers of processes.
    pub fn processes(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Moves a process here.
    pub fn take(&self, pid: i32) {
        fs::write(self.processes(), pid.to_string()).expect("who may make a group may fill it");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It is empty once its processes have ended; what cannot be removed does no harm.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Where a line of `/proc/self/cgroup` (`number:controllers:path`) says that a group with a limit can be made, and the file
/// the limit goes into; `None`: not by this hierarchy.
fn place(line: &str) -> Option<(PathBuf, &'static str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    if controllers.split(',').any(|it| it == "memory") {
        return Some((Path::new("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes"));
    }
    if !controllers.is_empty() {
        return None;
    }
    let hands_down = |group: &&Path| {
        let controllers = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        controllers.split_whitespace().any(|it| it == "memory")
    };
    // Beside cgroups of version 1 the second is mounted elsewhere, and its root has no memory to give.
    let root = Path::new("/sys/fs/cgroup");
    let ours = root.join(path);
    let parent = ours.ancestors().take_while(|group| group.starts_with(root)).find(hands_down)?;
    Some((parent.to_owned(), "memory.max"))
}
