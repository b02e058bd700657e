"""The benchmark's parts: servers, measurements, scenarios, the report. `bench/postgres` puts them together."""
