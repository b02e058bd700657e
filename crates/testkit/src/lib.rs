//! Throwaway real servers, the Entra simulator and clients for tests; never a dependency of what ships
