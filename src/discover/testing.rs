//! What the tests of this folder share: an outlet that remembers, and patience that ends.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::Notify;

use super::{DiscoverEvent, Outlet};

/// Remembers everything it is told.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) sets: RefCell<Vec<Vec<SocketAddr>>>,
    pub(super) events: RefCell<Vec<DiscoverEvent>>,
    told: Notify,
}

impl Recorder {
    /// Waits until `enough` holds.
    pub(super) async fn until(&self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            self.told.notified().await;
        }
    }

    pub(super) fn last(&self) -> Option<Vec<SocketAddr>> {
        self.sets.borrow().last().cloned()
    }
}

impl Outlet for Recorder {
    fn offer(&self, servers: Vec<SocketAddr>) {
        self.sets.borrow_mut().push(servers);
        self.told.notify_one();
    }

    fn is_own(&self, _: SocketAddr) -> bool {
        false
    }

    fn report(&self, event: DiscoverEvent) {
        self.events.borrow_mut().push(event);
        self.told.notify_one();
    }
}

/// Runs `test` beside `background`, which never ends, for 20 s at most.
pub(super) fn beside(background: impl Future<Output = ()>, test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be had");
    let limited = async {
        tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! {
                () = background => panic!("the background has ended"),
                () = test => {}
            }
        })
        .await
    };
    runtime.block_on(limited).expect("the test takes less time than it is given");
}

pub(super) fn socket(address: &str) -> SocketAddr {
    address.parse().expect("an address and a port")
}
