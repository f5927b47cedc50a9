//! Virtual-time simulation of tenants, loads and adversaries over the scheduling policies.
