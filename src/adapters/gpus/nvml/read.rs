//! Readings through NVML. What the driver does not tell is `None`; a card that is lost is told apart from a driver that fails.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use nvml_wrapper::{
    Device, EventSet, Nvml,
    bitmasks::event::EventTypes,
    enum_wrappers::device::TemperatureSensor,
    enums::{device::UsedGpuMemory, event::XidError},
    error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};
use tracing::warn;

use super::super::{GpuDevice, GpuError, GpuProcess, GpuSample, procfs};

const MIB: u64 = 1 << 20;
const MILLIWATTS: f64 = 1000.0;
const MIG_ENABLED: u32 = 1;
/// Events taken in one reading; the others wait for the next.
const EVENTS: usize = 32;

/// Why there is no reading.
#[derive(Debug)]
pub enum Failure {
    /// To be told to whoever asked.
    Told(GpuError),
    /// Also, the handle is of no use any more: open another.
    Reopen(GpuError),
}

/// An open NVML with what was heard since.
pub struct Session<'nvml> {
    nvml: &'nvml Nvml,
    proc_root: &'nvml Path,
    events: Option<EventSet<'nvml>>,
    xids: HashMap<String, u64>,
    /// Indices of cards that could not be read, so that it is logged once.
    lost: BTreeMap<u32, String>,
}

impl<'nvml> Session<'nvml> {
    pub fn new(nvml: &'nvml Nvml, proc_root: &'nvml Path) -> Self {
        Self { nvml, proc_root, events: listen(nvml), xids: HashMap::new(), lost: BTreeMap::new() }
    }

    pub fn inventory(&mut self) -> Result<Vec<GpuDevice>, Failure> {
        self.take_events();
        let mut devices = Vec::new();
        let mut lost = BTreeMap::new();
        for index in 0..self.nvml.device_count().map_err(failure)? {
            match self.nvml.device_by_index(index).and_then(|device| self.card(index, &device)) {
                Ok(found) => devices.extend(found),
                Err(error) if is_lost(&error) => {
                    lost.insert(index, error.to_string());
                }
                Err(error) => return Err(failure(error)),
            }
        }
        for (index, why) in lost.iter().filter(|(index, _)| !self.lost.contains_key(index)) {
            warn!(index, why, "a GPU is lost");
        }
        self.lost = lost;
        Ok(devices)
    }

    pub fn sample(&mut self, uuid: &str) -> Result<GpuSample, Failure> {
        let device = self.nvml.device_by_uuid(uuid);
        match device.and_then(|device| self.memory_and_processes(&device)) {
            Ok(sample) => Ok(sample),
            Err(error) if is_lost(&error) => Err(Failure::Told(GpuError::NotFound(format!("{uuid} is lost: {error}")))),
            // No card has it, or it is not even a uuid.
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => Err(Failure::Told(GpuError::NotFound(uuid.to_owned()))),
            Err(error) => Err(failure(error)),
        }
    }

    /// The card, and its MIG instances after it.
    fn card(&self, index: u32, card: &Device<'_>) -> Result<Vec<GpuDevice>, NvmlError> {
        let mut found = vec![self.device(index, None, card)?];
        let has_mig = card.mig_mode().is_ok_and(|mode| mode.current == MIG_ENABLED);
        let parts = if has_mig { card.mig_device_count()? } else { 0 };
        for part in 0..parts {
            match card.mig_device_by_index(part) {
                Ok(instance) => found.push(self.device(index, Some(part), &instance)?),
                // So many could be, not all are.
                Err(NvmlError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn device(&self, index: u32, mig: Option<u32>, device: &Device<'_>) -> Result<GpuDevice, NvmlError> {
        let uuid = device.uuid()?;
        let sample = self.memory_and_processes(device)?;
        Ok(GpuDevice {
            index,
            mig,
            name: device.name()?,
            memory_total_mib: sample.memory_total_mib,
            memory_used_mib: sample.memory_used_mib,
            utilization_percent: told(device.utilization_rates())?.map(|rates| rates.gpu),
            temperature_celsius: told(device.temperature(TemperatureSensor::Gpu))?,
            power_watts: told(device.power_usage())?.map(|milliwatts| f64::from(milliwatts) / MILLIWATTS),
            last_xid: self.xids.get(&uuid).copied(),
            processes: sample.processes,
            uuid,
        })
    }

    /// Used is whatever is not free, so that what the driver keeps for itself is not promised to anybody.
    fn memory_and_processes(&self, device: &Device<'_>) -> Result<GpuSample, NvmlError> {
        let memory = told(device.memory_info())?;
        Ok(GpuSample {
            memory_total_mib: memory.as_ref().map_or(0, |memory| memory.total / MIB),
            memory_used_mib: memory.map(|memory| memory.total.saturating_sub(memory.free).div_ceil(MIB)),
            processes: self.processes(device)?,
        })
    }

    /// Each pid once, with the larger of the two figures where it computes and draws. None: not both lists are known.
    fn processes(&self, device: &Device<'_>) -> Result<Option<Vec<GpuProcess>>, NvmlError> {
        let Some(computing) = told(device.running_compute_processes())? else { return Ok(None) };
        let drawing = match device.running_graphics_processes() {
            // A card that cannot draw has nobody who does.
            Err(NvmlError::NotSupported) => Vec::new(),
            answer => match told(answer)? {
                Some(drawing) => drawing,
                None => return Ok(None),
            },
        };
        let mut used_by_pid: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for process in computing.iter().chain(&drawing) {
            let used = used_by_pid.entry(process.pid).or_default();
            *used = (*used).max(used_mib(process));
        }
        Ok(Some(used_by_pid.into_iter().map(|(pid, used)| procfs::process(self.proc_root, pid, used)).collect()))
    }

    /// Does not wait: the driver has kept them for us.
    fn take_events(&mut self) {
        let Some(events) = &self.events else { return };
        for _ in 0..EVENTS {
            let Ok(event) = events.wait(0) else { return };
            let (Some(XidError::Value(xid)), Ok(uuid)) = (event.event_data, event.device.uuid()) else { continue };
            warn!(uuid, xid, "the GPU driver reports an Xid");
            self.xids.insert(uuid, xid);
        }
    }
}

/// None where no card, or the driver, can tell of Xids.
fn listen(nvml: &Nvml) -> Option<EventSet<'_>> {
    let mut events = nvml.create_event_set().ok()?;
    for index in 0..nvml.device_count().ok()? {
        let Ok(device) = nvml.device_by_index(index) else { continue };
        let can = device.supported_event_types().is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR));
        if can {
            events = device.register_events(EventTypes::CRITICAL_XID_ERROR, events).ok()?;
        }
    }
    Some(events)
}

fn used_mib(process: &ProcessInfo) -> Option<u64> {
    match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes.div_ceil(MIB)),
        UsedGpuMemory::Unavailable => None,
    }
}

/// One figure that is not told is nothing against the others; a card that is lost is.
fn told<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_lost(&error) || is_stale(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The card cannot be used, whatever else works.
fn is_lost(error: &NvmlError) -> bool {
    matches!(error, NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::InsufficientPower | NvmlError::IrqIssue)
}

/// The driver was unloaded or exchanged beneath us.
fn is_stale(error: &NvmlError) -> bool {
    matches!(error, NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch)
}

fn failure(error: NvmlError) -> Failure {
    let told = GpuError::Unreachable(format!("NVML: {error}"));
    if is_stale(&error) { Failure::Reopen(told) } else { Failure::Told(told) }
}
