//! Other contracts for a running tenant or an export, as a client asks for them.

use std::collections::BTreeMap;

use moirai_config::document::{ContractTable, NetTable, TenantTable, VolumeTable};
use moirai_config::export::ExportTable;
use moirai_config::units::Size;
use moirai_config::{Holder, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to change. Keys that are not given stay as they are; a new slice replaces a rate and the
/// other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The contract on the core. Exports have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<ContractTable>,
    /// Memory that the guest is to keep, by its balloon. Exports have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Contracts of volumes, by the name of the disk or by number, from 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disk: BTreeMap<String, ContractTable>,
    /// Contracts of interfaces, by the name of the link or by number, from 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub net: BTreeMap<String, ContractTable>,
}

impl Change {
    /// The table of a tenant with the change.
    ///
    /// # Errors
    /// A key that names nothing.
    pub fn of_tenant(&self, old: &TenantTable) -> Result<TenantTable, Problem> {
        let mut table = old.clone();
        if let Some(change) = self.cpu {
            table.cpu = Some(table.cpu.unwrap_or_default().changed(change));
        }
        self.put_into(&Holder::Tenant(old.name.clone()), &mut table.disk, &mut table.net)?;
        Ok(table)
    }

    /// The table of an export with the change.
    ///
    /// # Errors
    /// A key that names nothing: also those of core and memory, which are its VMM's.
    pub fn of_export(&self, old: &ExportTable) -> Result<ExportTable, Problem> {
        let asked = [("cpu", self.cpu.is_some()), ("memory", self.memory.is_some())];
        if let Some((key, _)) = asked.into_iter().find(|(_, asked)| *asked) {
            return Err(Problem {
                path: key.to_owned(),
                message: format!("{} has no {key}", old.holder()),
                help: "an export is a disk or a net; the rest of its guest is its VMM's".to_owned(),
            });
        }
        let mut table = old.clone();
        self.put_into(&old.holder(), table.disk.as_mut_slice(), table.net.as_mut_slice())?;
        Ok(table)
    }

    /// Puts the contracts of devices into the tables of `owner`.
    fn put_into(
        &self,
        owner: &Holder,
        volumes: &mut [VolumeTable],
        nets: &mut [NetTable],
    ) -> Result<(), Problem> {
        let disks: Vec<_> = volumes.iter().map(|volume| volume.disk.clone()).collect();
        let links: Vec<_> = nets.iter().map(|net| net.link.clone()).collect();
        for (key, change) in &self.disk {
            let volume = find(volumes, key, |volume| &volume.disk);
            let volume = volume.ok_or_else(|| unknown(owner, "disk", key, &disks))?;
            let ContractTable { period, slice, rate, deadline, extra } =
                volume.contract().changed(*change);
            (volume.period, volume.slice, volume.rate) = (period, slice, rate);
            (volume.deadline, volume.extra) = (deadline, extra);
        }
        for (key, change) in &self.net {
            let net = find(nets, key, |net| &net.link);
            let net = net.ok_or_else(|| unknown(owner, "net", key, &links))?;
            let ContractTable { period, slice, rate, deadline, extra } =
                net.contract().changed(*change);
            (net.period, net.slice, net.rate) = (period, slice, rate);
            (net.deadline, net.extra) = (deadline, extra);
        }
        Ok(())
    }
}

fn find<'a, T>(items: &'a mut [T], key: &str, name: impl Fn(&T) -> &String) -> Option<&'a mut T> {
    let by_number = key.parse().ok().filter(|index: &usize| *index < items.len());
    let place = by_number.or_else(|| items.iter().position(|item| name(item) == key));
    items.get_mut(place?)
}

/// `on`: the disks or links of the owner's devices, in their order.
fn unknown(owner: &Holder, kind: &str, key: &str, on: &[String]) -> Problem {
    let shown = on.iter().enumerate().map(|(number, name)| format!("{kind}.{name} ({number})"));
    let help = match on {
        [] => format!("it has none; its table would need one of `[[tenant.{kind}]]`"),
        _ => format!("name what it has, or its number: {}", shown.collect::<Vec<_>>().join(", ")),
    };
    let message = format!("{owner} has no {kind} {key:?}");
    Problem { path: format!("{kind}.{key}"), message, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TenantTable {
        toml::from_str(
            "name = \"a\"\nimage = \"i\"\n[cpu]\nperiod = \"10ms\"\nslice = \"2ms\"\n\
             [[disk]]\ndisk = \"ssd\"\nvolume = \"v\"\n[[disk]]\ndisk = \"hdd\"\nvolume = \"w\"\n",
        )
        .expect("a table")
    }

    fn change(text: &str) -> Change {
        serde_json::from_str(text).expect("a change")
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let new = change(r#"{"cpu": {"slice": "3ms"}}"#).of_tenant(&table()).expect("applies");
        let cpu = new.cpu.expect("a contract");
        assert_eq!((cpu.period, cpu.slice), ("10ms".parse().ok(), "3ms".parse().ok()));
        assert_eq!(new.disk, table().disk);
    }

    #[test]
    fn a_volume_is_found_by_disk_or_by_number() {
        for key in ["hdd", "1"] {
            let text = format!(r#"{{"disk": {{"{key}": {{"period": "1s", "rate": "5%"}}}}}}"#);
            let new = change(&text).of_tenant(&table()).expect("applies");
            let rates: Vec<_> = new.disk.iter().map(|volume| volume.rate.is_some()).collect();
            assert_eq!(rates, [false, true]);
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let problem =
            change(r#"{"net": {"0": {}}}"#).of_tenant(&table()).expect_err("no interface");
        assert_eq!(problem.message, "a has no net \"0\"");
        assert!(problem.help.contains("it has none"), "{}", problem.help);
        let problem = change(r#"{"disk": {"sdd": {}}}"#).of_tenant(&table()).expect_err("no disk");
        assert!(problem.help.ends_with("disk.ssd (0), disk.hdd (1)"), "{}", problem.help);
    }

    #[test]
    fn an_export_has_its_one_device_and_nothing_else() {
        let table: ExportTable = toml::from_str(
            "name = \"db\"\nsocket = \"s\"\n[disk]\ndisk = \"ssd\"\nperiod = \"1s\"\nrate \
             = \"5%\"\n",
        )
        .expect("a table");
        for key in ["0", "ssd"] {
            let new = change(&format!(r#"{{"disk": {{"{key}": {{"slice": "20ms"}}}}}}"#));
            let disk = new.of_export(&table).expect("applies").disk.expect("a disk");
            assert_eq!((disk.period, disk.slice), ("1s".parse().ok(), "20ms".parse().ok()));
            assert_eq!(disk.rate, None, "a slice replaces the rate");
        }
        for (text, said) in [
            (r#"{"disk": {"1": {}}}"#, "export/db has no disk \"1\""),
            (r#"{"net": {"0": {}}}"#, "export/db has no net \"0\""),
            (r#"{"cpu": {"slice": "1ms"}}"#, "export/db has no cpu"),
            (r#"{"memory": "64M"}"#, "export/db has no memory"),
        ] {
            let problem = change(text).of_export(&table).expect_err(text);
            assert_eq!(problem.message, said);
        }
    }
}
