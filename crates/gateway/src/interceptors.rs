//! The protocols that this gateway speaks.

use std::sync::Arc;

use verbatim_store::Labels;
use verbatim_wire::Interceptor;

/// The protocols of a gateway, each by its interceptor.
#[derive(Clone)]
pub struct Interceptors(Vec<Arc<dyn Interceptor>>);

impl Default for Interceptors {
    /// Those that ship. Another protocol is another line here, or [`with`](Self::with) in a binary of one's own.
    fn default() -> Self {
        Self(vec![
            verbatim_postgres::interceptor(),
            verbatim_mysql::interceptor(),
            verbatim_redis::interceptor(),
            verbatim_http::interceptor(),
        ])
    }
}

impl Interceptors {
    /// One more protocol.
    #[must_use]
    pub fn with(mut self, interceptor: Arc<dyn Interceptor>) -> Self {
        self.0.push(interceptor);
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Interceptor>> {
        self.0.iter()
    }

    /// The one that serves connections of this type, and the type as it names it.
    pub(crate) fn of_type(&self, kind: &str) -> Option<(&'static str, &Arc<dyn Interceptor>)> {
        self.0.iter().find_map(|interceptor| {
            let known = interceptor.types().iter().find(|known| **known == kind)?;
            Some((*known, interceptor))
        })
    }

    /// The labels of statements, by the protocol of their session.
    pub(crate) fn labels(&self) -> Labels {
        let interceptors = self.clone();
        Arc::new(move |kind, text| interceptors.of_type(kind)?.1.statement(text))
    }
}
