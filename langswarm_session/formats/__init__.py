"""Wire formats of providers: pure functions between a record's messages and what is sent."""
