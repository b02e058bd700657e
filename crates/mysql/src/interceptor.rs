//! How the gateway registers this protocol, and what a listener of it shares.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;
use verbatim_wire::{Interceptor, InvalidTarget, Listener, Serve, Target, TargetSettings, downcast};

use crate::cancel::Registry;
use crate::greeting::Offer;
use crate::startup;
use crate::target::MysqlTarget;

/// The protocol. One a gateway: all of its listeners share the thread ids.
#[derive(Default)]
pub(crate) struct Mysql {
    pub(crate) registry: Arc<Registry>,
}

/// What all streams of one listener share.
pub(crate) struct Context {
    pub(crate) listener: Listener,
    pub(crate) mysql: Arc<Mysql>,
}

impl Context {
    /// What clients of this listener are told, before it is known which of its targets they want. Targets that were never
    /// reached are asked now, for at most this long.
    pub(crate) async fn offer(&self, patience: Duration) -> Offer {
        let targets = self.targets();
        let unknown: Vec<_> = targets.iter().filter(|target| target.greeting().is_none()).collect();
        if !unknown.is_empty() {
            // Those that do not answer are left out.
            let _ = timeout(patience, join_all(unknown.into_iter().map(|target| target.learn()))).await;
        }
        let known: Vec<_> = targets.iter().filter_map(|target| target.greeting()).collect();
        Offer::of(&known)
    }

    fn targets(&self) -> Vec<Arc<MysqlTarget>> {
        match &self.listener.own {
            Some(own) => {
                let target = self.listener.targets.get(own.as_str());
                target.and_then(|(_, target)| downcast(target)).into_iter().collect()
            }
            None => self
                .listener
                .targets
                .all()
                .into_iter()
                .filter_map(|(_, _, target)| downcast(target))
                .collect(),
        }
    }
}

impl Interceptor for Mysql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn types(&self) -> &'static [&'static str] {
        &["mysql"]
    }

    fn example(&self) -> &'static str {
        "mysql://app@db.internal:3306/orders?sslmode=verify-full"
    }

    fn statement(&self, text: &str) -> Option<String> {
        verbatim_sql::statement(text, verbatim_sql::Dialect::MySql).map(|label| label.word().to_owned())
    }

    fn target(&self, settings: TargetSettings<'_>) -> Result<Arc<dyn Target>, InvalidTarget> {
        Ok(Arc::new(MysqlTarget::parse(settings)?))
    }

    fn listen(self: Arc<Self>, listener: Listener) -> Serve {
        let context = Arc::new(Context { listener, mysql: self });
        Arc::new(move |socket: TcpStream, peer: SocketAddr| {
            let context = Arc::clone(&context);
            Box::pin(startup::serve(socket, peer, context))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack 28: what a server executes is code, whatever it stands in.
    #[test]
    fn executable_comments_are_code_and_others_are_none() {
        let of = |text: &str| Mysql::default().statement(text);
        assert_eq!(of("SELECT 1 # DROP TABLE t").as_deref(), Some("select"));
        assert_eq!(of("SELECT 1 -- DROP TABLE t").as_deref(), Some("select"));
        for hidden in
            ["/*!50000 DROP TABLE t */", "/*! DROP TABLE t */", "SELECT 1; /*!50000 DROP TABLE t */"]
        {
            assert_ne!(of(hidden).as_deref(), Some("select"), "{hidden}");
        }
    }
}
