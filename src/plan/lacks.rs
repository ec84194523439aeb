//! What a plan asks for and this version does not do yet: so that nothing is promised that does not happen.

use super::{Members, Plan};

impl Plan {
    /// What is accepted and has no effect, or not the whole one: a line for each, in the order of the keys.
    ///
    /// Defaults bring no line: only what somebody wrote is worth one.
    pub fn not_yet(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        for upstream in &self.upstreams {
            if matches!(upstream.members, Members::Service { .. }) {
                let key = format!("`upstreams.{}.service`", upstream.name);
                lacks.push(format!("{key} from EndpointSlices; its endpoints are followed by name"));
            }
        }
        lacks
    }
}
