"""The data plane and the programs: what clients reach. Decides nothing about models."""
