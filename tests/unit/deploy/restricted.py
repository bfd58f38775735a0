"""The `restricted` profile of Kubernetes' Pod Security Standards, `baseline` included, for a pod's spec.

As https://kubernetes.io/docs/concepts/security/pod-security-standards lists it, for Linux."""

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
_SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(pod: dict[str, Any]) -> list[str]:
    """What the profile forbids in this pod; empty when it may be admitted."""
    return list(_of_pod(pod)) + [found for one in _containers(pod) for found in _of_container(one, pod)]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for kind in ("initContainers", "containers", "ephemeralContainers") for one in pod.get(kind, [])]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    context = pod.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_context("pod", context)


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    name, context, shared = container["name"], container.get("securityContext", {}), pod.get("securityContext", {})
    if context.get("privileged"):
        yield f"{name}: privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name}: capabilities not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities added"
    if context.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot"
    if context.get("seccompProfile", shared.get("seccompProfile", {})).get("type") not in {
        "RuntimeDefault",
        "Localhost",
    }:
        yield f"{name}: seccompProfile"
    if any("hostPort" in port and port["hostPort"] != 0 for port in container.get("ports", [])):
        yield f"{name}: hostPort"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        action = container.get(probe, {})
        if any("host" in action.get(kind, {}) for kind in ("httpGet", "tcpSocket")):
            yield f"{name}: host of {probe}"
    yield from _of_context(name, context)


def _of_context(name: str, context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{name}: runAsUser 0"
    if context.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield f"{name}: appArmorProfile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name}: hostProcess"
    linux = context.get("seLinuxOptions", {})
    if linux.get("type") not in _SELINUX or linux.get("user") or linux.get("role"):
        yield f"{name}: seLinuxOptions"
