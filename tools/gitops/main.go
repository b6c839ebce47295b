// What Argo CD and Flux make of objects: the health by a Lua script, and the status by kstatus.
//
//	gitops health.lua < objects.jsonl
//
// writes a line of JSON for each line of input.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
)

type said struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type line struct {
	ArgoCD said `json:"argocd"`
	Flux   said `json:"flux"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	script, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<24)
	output := json.NewEncoder(os.Stdout)
	for input.Scan() {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(input.Bytes()); err != nil {
			return err
		}
		health, err := argoCD(string(script), object)
		if err != nil {
			return fmt.Errorf("%s: %w", input.Text(), err)
		}
		found, err := status.Compute(object)
		if err != nil {
			return err
		}
		flux := said{Status: found.Status.String(), Message: found.Message}
		if err := output.Encode(line{ArgoCD: health, Flux: flux}); err != nil {
			return err
		}
	}
	return input.Err()
}

// argoCD runs a script as Argo CD does by default: without files, processes and modules.
func argoCD(script string, object *unstructured.Unstructured) (said, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName:   lua.OpenBase,
		lua.TabLibName:    lua.OpenTable,
		lua.StringLibName: lua.OpenString,
		lua.MathLibName:   lua.OpenMath,
	} {
		param := lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}
		if err := state.CallByParam(param, lua.LString(name)); err != nil {
			return said{}, err
		}
	}
	text, err := object.MarshalJSON()
	if err != nil {
		return said{}, err
	}
	value, err := luajson.Decode(state, text)
	if err != nil {
		return said{}, err
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		return said{}, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return said{}, fmt.Errorf("the script returns no table")
	}
	health := said{
		Status:  table.RawGetString("status").String(),
		Message: table.RawGetString("message").String(),
	}
	switch health.Status {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return health, nil
	}
	return said{}, fmt.Errorf("Argo CD has no health %s", health.Status)
}
