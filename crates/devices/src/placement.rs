//! The device of each worker: pure functions of options and the number of GPUs.

use std::collections::BTreeMap;
use std::iter::repeat_n;

use serde_json::Value;

/// The slots of an endpoint, by which its devices are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// This number of slots on each device.
    PerDevice(usize),
    /// This number of slots over all devices, which take turns.
    InTotal(usize),
}

/// Returns the device of each slot of an endpoint, such as `cuda:0` or `cpu`.
///
/// `gpus` is the number of NVIDIA GPUs that programs may use; see [`count_gpus`](crate::count_gpus).
///
/// # Errors
/// A requested device does not exist.
pub fn place(
    accelerator: &str,
    devices: &Value,
    slots: Slots,
    gpus: usize,
) -> Result<Vec<String>, String> {
    let devices = match accelerator {
        "cpu" => vec!["cpu".into()],
        "mps" => vec!["mps:0".into()],
        "auto" if gpus == 0 => vec!["cpu".into()],
        _ => cuda(accelerator, devices, gpus)?,
    };
    Ok(match slots {
        Slots::PerDevice(copies) => {
            devices.into_iter().flat_map(|device| repeat_n(device, copies)).collect()
        }
        Slots::InTotal(slots) => devices.into_iter().cycle().take(slots).collect(),
    })
}

fn cuda(accelerator: &str, devices: &Value, gpus: usize) -> Result<Vec<String>, String> {
    let wanted: Vec<usize> = match devices {
        Value::Array(indices) => {
            indices.iter().filter_map(|index| Some(index.as_u64()? as usize)).collect()
        }
        Value::Number(count) => (0..count.as_u64().unwrap_or_default() as usize).collect(),
        _ => (0..gpus.max(1)).collect(),
    };
    match wanted.iter().find(|index| **index >= gpus) {
        Some(_) if gpus == 0 => Err(format!(
            "`accelerator` is \"{accelerator}\" but no NVIDIA GPU is visible; use \"cpu\" or check \
             CUDA_VISIBLE_DEVICES"
        )),
        Some(index) => Err(format!("`devices` asks for GPU {index} and there are {gpus}")),
        None => Ok(wanted.into_iter().map(|index| format!("cuda:{index}")).collect()),
    }
}

/// The shares of GPU memory that the workers of one endpoint may take.
#[derive(Debug, Clone, Copy)]
pub struct Shares<'a> {
    /// The endpoint's path.
    pub path: &'a str,
    /// The device of each worker.
    pub devices: &'a [String],
    /// The share of each worker, if it is limited.
    pub fraction: Option<f64>,
}

/// Returns an error for each GPU whose shares of memory add up to more than 1.
pub fn overcommitted(endpoints: &[Shares<'_>]) -> Vec<String> {
    let mut given: BTreeMap<&str, Vec<(&str, usize, f64)>> = BTreeMap::new();
    for Shares { path, devices, fraction } in endpoints {
        let Some(fraction) = *fraction else { continue };
        for device in devices.iter().filter(|device| device.starts_with("cuda")) {
            let shares = given.entry(device).or_default();
            match shares.last_mut() {
                Some((last, workers, _)) if last == path => *workers += 1,
                _ => shares.push((path, 1, fraction)),
            }
        }
    }
    given.into_iter().filter_map(|(device, shares)| overcommitment(device, &shares)).collect()
}

fn overcommitment(device: &str, shares: &[(&str, usize, f64)]) -> Option<String> {
    let sum: f64 = shares.iter().map(|(_, workers, fraction)| *workers as f64 * fraction).sum();
    let parts = shares.iter().map(|(path, workers, fraction)| match workers {
        1 => format!("{fraction} of `{path}`"),
        _ => format!("{workers} × {fraction} of `{path}`"),
    });
    // Tenths that add up to 1 miss it by rounding.
    (sum > 1.0 + 1e-9).then(|| {
        format!(
            "`gpu_memory_fraction` on {device} adds up to {}, which is more than 1: {}",
            (sum * 1000.0).round() / 1000.0,
            parts.collect::<Vec<_>>().join(" + "),
        )
    })
}

/// Returns the device name that an isolated worker uses, and the `CUDA_VISIBLE_DEVICES` that hides
/// the other GPUs from it.
///
/// `visible` is the `CUDA_VISIBLE_DEVICES` of the server: `cuda:0` is its first entry.
pub fn isolate(device: &str, visible: Option<&str>) -> (String, Option<String>) {
    let Some(index) = device.strip_prefix("cuda:") else {
        let hidden = (device == "cpu").then(String::new);
        return (device.to_owned(), hidden);
    };
    let entry = index.parse().ok().and_then(|index: usize| visible?.split(',').nth(index));
    ("cuda:0".into(), Some(entry.unwrap_or(index).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workers_are_placed_device_by_device() {
        let two = Slots::PerDevice(2);
        let place = |accelerator, devices, gpus| place(accelerator, &devices, two, gpus);
        assert_eq!(place("auto", json!("auto"), 0).unwrap(), ["cpu", "cpu"]);
        assert_eq!(
            place("auto", json!("auto"), 2).unwrap(),
            ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
        );
        assert_eq!(place("cuda", json!([1]), 2).unwrap(), ["cuda:1", "cuda:1"]);
        assert_eq!(place("cpu", json!(4), 2).unwrap(), ["cpu", "cpu"], "a CPU is one device");
    }

    #[test]
    fn workers_that_come_and_go_take_turns_on_the_devices() {
        let slots = Slots::InTotal(3);
        assert_eq!(
            place("cuda", &json!("auto"), slots, 2).unwrap(),
            ["cuda:0", "cuda:1", "cuda:0"]
        );
    }

    #[test]
    fn shares_single_gpu_add_up_to_one_at_most() {
        let devices =
            |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        let (both, first) = (devices(&["cuda:0", "cuda:0", "cuda:1"]), devices(&["cuda:0"]));
        let shares = |path, devices, fraction| Shares { path, devices, fraction: Some(fraction) };
        let fits = [shares("/a", &both, 0.3), shares("/b", &first, 0.4)];
        assert_eq!(overcommitted(&fits), Vec::<String>::new());
        let ten = vec!["cuda:0".to_owned(); 10];
        assert_eq!(overcommitted(&[shares("/a", &ten, 0.1)]), Vec::<String>::new());
        assert_eq!(
            overcommitted(&[shares("/a", &both, 0.3), shares("/b", &first, 0.5)]),
            ["`gpu_memory_fraction` on cuda:0 adds up to 1.1, which is more than 1: \
                 2 × 0.3 of `/a` + 0.5 of `/b`"]
        );
        let cpu = devices(&["cpu", "cpu"]);
        let unlimited = Shares { path: "/b", devices: &first, fraction: None };
        assert_eq!(
            overcommitted(&[shares("/a", &cpu, 0.9), unlimited, shares("/c", &first, 1.0)]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_isolated_worker_has_one_gpu() {
        let seen = |device, entry: &str| (String::from(device), Some(entry.to_owned()));
        assert_eq!(isolate("cuda:1", None), seen("cuda:0", "1"));
        assert_eq!(isolate("cuda:1", Some("3, GPU-5a")), seen("cuda:0", "GPU-5a"));
        assert_eq!(isolate("cpu", Some("3")), seen("cpu", ""));
        assert_eq!(isolate("mps:0", None), ("mps:0".into(), None));
    }

    #[test]
    fn devices_that_are_not_there_are_an_error() {
        let problem = |accelerator, devices, gpus| {
            place(accelerator, &devices, Slots::PerDevice(1), gpus).unwrap_err()
        };
        assert!(problem("cuda", json!("auto"), 0).contains("no NVIDIA GPU"));
        assert!(problem("auto", json!(3), 2).contains("GPU 2"));
    }
}
