//! The seats of an endpoint on the devices that it may share with others.

use litplex_config::{DeviceConcurrency, Endpoint};
use litplex_core::Device;
use litplex_devices::available_cores;
use litplex_scheduler::{Capacity, DeviceShares, Seat, SharedDevice};

use crate::gpus::is_gpu;
use crate::placement::Placement;

/// Returns the seat of an endpoint on the device of each slot; `None` where workers need no turns.
pub(crate) fn seats(
    config: &Endpoint,
    placement: &Placement,
    (shares, concurrency): &(DeviceShares, DeviceConcurrency),
) -> Vec<Option<Seat>> {
    let own = config.resources.cpu_affinity.as_deref();
    let available = available_cores().map(|cores| cores.len());
    let mut seats: Vec<(SharedDevice, Seat)> = Vec::new();
    let seat = |device: &Device| {
        let device = shared_device(device, own, available, *concurrency)?;
        if let Some((_, seat)) = seats.iter().find(|(known, _)| *known == device) {
            return Some(seat.clone());
        }
        let seat = shares.seat(device.clone(), config.label(), config.resources.device_weight);
        seats.push((device, seat.clone()));
        Some(seat)
    };
    placement.devices.iter().map(seat).collect()
}

/// Returns the device that a worker shares; `None` without a limit.
///
/// Endpoints share cores if they have the same ones: those of `cpu_affinity`, or else all.
fn shared_device(
    device: &Device,
    own_cores: Option<&[usize]>,
    available: Option<usize>,
    concurrency: DeviceConcurrency,
) -> Option<SharedDevice> {
    let is_cpu = device.as_str() == "cpu";
    let mut own = own_cores.map(<[usize]>::to_vec);
    own.iter_mut().for_each(|cores| cores.sort_unstable());
    let capacity = match concurrency {
        DeviceConcurrency::Unlimited => return None,
        DeviceConcurrency::Workers(workers) => Capacity::Workers(workers),
        // The driver of a GPU divides its time among processes.
        DeviceConcurrency::Measured if is_gpu(device) || !is_cpu => return None,
        DeviceConcurrency::Measured => Capacity::Cores(own.as_ref().map(Vec::len).or(available)?),
    };
    let name = match own.filter(|_| is_cpu) {
        Some(cores) => format!("cores {cores:?}"),
        None => device.as_str().to_owned(),
    };
    Some(SharedDevice { name, capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(
        device: &str,
        cores: Option<&[usize]>,
        concurrency: DeviceConcurrency,
    ) -> Option<(String, Capacity)> {
        let shared = shared_device(&Device::new(device.to_owned()), cores, Some(8), concurrency)?;
        Some((shared.name, shared.capacity))
    }

    #[test]
    fn cores_are_shared_by_those_who_have_the_same() {
        let measured = |cores| shared("cpu", cores, DeviceConcurrency::Measured);
        assert_eq!(measured(None), Some(("cpu".into(), Capacity::Cores(8))));
        let two = Some(("cores [1, 3]".into(), Capacity::Cores(2)));
        assert_eq!(measured(Some(&[3, 1])), two);
        assert_eq!(measured(Some(&[1, 3])), two);
    }

    #[test]
    fn a_gpu_is_shared_in_turns_only_if_it_has_a_limit() {
        let on = |concurrency| shared("cuda:0", Some(&[1]), concurrency);
        assert_eq!(on(DeviceConcurrency::Measured), None);
        let limited = on(DeviceConcurrency::Workers(1));
        assert_eq!(limited, Some(("cuda:0".into(), Capacity::Workers(1))));
        assert_eq!(shared("cpu", None, DeviceConcurrency::Unlimited), None);
    }
}
