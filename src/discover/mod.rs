//! placeholder
use std::net::SocketAddr; use std::path::Path;
pub struct DiscoverEvent; impl DiscoverEvent { pub fn label(&self)->&'static str{""} } impl std::fmt::Display for DiscoverEvent { fn fmt(&self,_:&mut std::fmt::Formatter<'_>)->std::fmt::Result{Ok(())} }
pub async fn follow(_u:&crate::plan::Upstream,_r:&Path,_o:&[SocketAddr],_s:impl Fn(Vec<SocketAddr>),_e:impl Fn(DiscoverEvent)){std::future::pending().await}
pub struct FileWatcher; impl FileWatcher { pub fn new(_:&Path)->std::io::Result<Self>{Ok(Self)} pub async fn changed(&mut self)->std::io::Result<()>{std::future::pending().await} }
