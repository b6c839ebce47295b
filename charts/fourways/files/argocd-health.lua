-- Health of a ModelDeployment for Argo CD. In its ConfigMap argocd-cm:
--   resource.customizations.health.fourways.dev_ModelDeployment: |
--     (this file)
local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "waiting for the Fourways operator"}
end

local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end

local function is_true(kind)
  return found[kind] ~= nil and found[kind].status == "True"
end

local function health(word, kind)
  local condition = found[kind] or {reason = "Unknown", message = "no condition " .. kind}
  return {status = word, message = condition.reason .. ": " .. condition.message}
end

-- Somebody has to change the spec or the cluster.
if is_true("Stalled") then
  return health("Degraded", "Stalled")
end
-- The cluster is being brought to what the spec says.
if is_true("Reconciling") then
  return health("Progressing", "Reconciling")
end
-- Something failed, possibly while earlier predictions are still served.
if is_true("Degraded") then
  return health("Degraded", "Degraded")
end
if not is_true("Ready") then
  return health("Progressing", "Ready")
end
if obj.spec.batch ~= nil and obj.spec.batch.suspend then
  return {status = "Suspended", message = "scheduled runs are paused (batch.suspend)"}
end
return health("Healthy", "Ready")
