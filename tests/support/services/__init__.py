"""Stand-ins for the services that the app talks to, and the programs that talk to it: nginx and Node."""
