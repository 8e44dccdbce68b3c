"""A local exchange that speaks Bybit V5 on loopback: matching core, moving market, server, faults."""
