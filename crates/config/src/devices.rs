//! Which device each worker gets.

use std::fs;
use std::iter::repeat_n;

use serde_json::Value;

use crate::Workers;

/// Returns the device of each worker slot of an endpoint, `cuda:0` or `cpu`. Where workers come and
/// go there is a slot for each that may come, and each further one is on the next device.
///
/// `gpus` is the number of NVIDIA GPUs that programs may use; see [`count_gpus`].
///
/// # Errors
/// The devices that were asked for are not there, in a sentence.
pub fn place(
    accelerator: &str,
    devices: &Value,
    workers: Workers,
    gpus: usize,
) -> Result<Vec<String>, String> {
    let devices = match accelerator {
        "cpu" => vec!["cpu".into()],
        "mps" => vec!["mps:0".into()],
        "auto" if gpus == 0 => vec!["cpu".into()],
        _ => cuda(accelerator, devices, gpus)?,
    };
    Ok(match workers {
        Workers::PerDevice(copies) => {
            devices.into_iter().flat_map(|device| repeat_n(device, copies)).collect()
        }
        Workers::Between { max, .. } => devices.into_iter().cycle().take(max).collect(),
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
            "`accelerator` is \"{accelerator}\" and this machine shows no NVIDIA GPU; use \"cpu\" \
             or look at what CUDA_VISIBLE_DEVICES says"
        )),
        Some(index) => Err(format!("`devices` asks for GPU {index} and there are {gpus}")),
        None => Ok(wanted.into_iter().map(|index| format!("cuda:{index}")).collect()),
    }
}

/// Returns how many NVIDIA GPUs programs on this machine may use: those of the driver, or those
/// that `CUDA_VISIBLE_DEVICES` names, by index or by UUID.
pub fn count_gpus(visible: Option<&str>) -> usize {
    let of_the_driver = fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    match visible {
        Some(names) => {
            let named = names.split(',').map(str::trim);
            named.take_while(|name| !name.is_empty() && *name != "-1").count().min(of_the_driver)
        }
        None => of_the_driver,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workers_are_placed_device_by_device() {
        let two = Workers::PerDevice(2);
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
        let workers = Workers::Between { min: 0, max: 3 };
        assert_eq!(
            place("cuda", &json!("auto"), workers, 2).unwrap(),
            ["cuda:0", "cuda:1", "cuda:0"]
        );
    }

    #[test]
    fn devices_that_are_not_there_are_an_error() {
        let mistake = |accelerator, devices, gpus| {
            place(accelerator, &devices, Workers::PerDevice(1), gpus).unwrap_err()
        };
        assert!(mistake("cuda", json!("auto"), 0).contains("no NVIDIA GPU"));
        assert!(mistake("auto", json!(3), 2).contains("GPU 2"));
    }
}
