//! Throwaway real servers, the Entra simulator and clients for tests; never a dependency of what ships

pub mod gateway;
pub mod idp;
pub mod postgres;
pub mod record;
pub mod relay;
