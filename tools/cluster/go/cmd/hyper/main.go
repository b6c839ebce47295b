// Command hyper is every Kubernetes program of the test cluster in one binary: one link step and
// one file in memory instead of six. The program is chosen by the name hyper is called under (a
// symbolic link such as kubectl), else by its first argument.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// commandFor returns the named program's root command, or nil for a name hyper does not know.
func commandFor(name string) *cobra.Command {
	switch name {
	case "kube-apiserver":
		return apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		return kcm.NewControllerManagerCommand()
	case "kube-scheduler":
		return scheduler.NewSchedulerCommand()
	case "kube-proxy":
		return proxy.NewProxyCommand()
	case "kubelet":
		// Not SetupSignalContext: the kubelet sets it up itself, and a second call panics.
		return kubelet.NewKubeletCommand(context.Background())
	case "fourways-volumes":
		return newVolumesCommand()
	case "kubectl":
		return kubectl.NewDefaultKubectlCommand()
	}
	return nil
}

func main() {
	name := filepath.Base(os.Args[0])
	command := commandFor(name)
	if command == nil && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = append([]string{name}, os.Args[2:]...)
		command = commandFor(name)
	}
	if command == nil {
		fmt.Fprintln(os.Stderr, "hyper: call me as kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubelet, kubectl or fourways-volumes")
		os.Exit(2)
	}
	if name == "kubectl" {
		// kubectl's own main: errors are printed and mapped to exit codes by kubectl.
		if err := cli.RunNoErrOutput(command); err != nil {
			kubectlutil.CheckErr(err)
		}
		return
	}
	os.Exit(cli.Run(command))
}
