//! The memory of all workers: the task that owns the decision which of them are in memory, and the launch that
//! asks it. The decision itself is in the crate `litplex_residency`.

mod budget;
mod hibernation;
mod launch;
mod measure;
mod member;
mod report;
mod shown;
mod starts;
mod task;

pub(crate) use hibernation::HibernatedWorkers;
pub(crate) use launch::{BudgetedLaunch, MemoryDemand};
pub(crate) use member::{Load, Member, Membership, ResidencyHandle};
pub(crate) use starts::name_of;
