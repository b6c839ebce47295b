package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const resyncPeriod = 30 * time.Second

// newVolumesCommand makes released hostPath volumes available again: their content goes, then their
// claim. The controller manager's own recycler is deprecated, wants a pod for each volume, and loses
// track of volumes that are released together.
func newVolumesCommand() *cobra.Command {
	var kubeconfig, root string
	command := &cobra.Command{
		Use:          "fourways-volumes",
		Short:        "Empty released volumes and offer them again",
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			return watchVolumes(command.Context(), client, root)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&root, "root", "", "folder the volumes lie in; no other is touched")
	return command
}

// watchVolumes looks at every volume when it changes, and at all of them once an informer resyncs.
func watchVolumes(ctx context.Context, client kubernetes.Interface, root string) error {
	if ctx == nil {
		ctx = context.Background()
	}
	look := func(object any) {
		volume, ok := object.(*corev1.PersistentVolume)
		if !ok || volume.Status.Phase != corev1.VolumeReleased {
			return
		}
		// A conflict means that the volume changed since; the informer is about to tell.
		if err := offerAgain(ctx, client, root, volume); err != nil && !apierrors.IsConflict(err) {
			klog.ErrorS(err, "volume is not offered again", "volume", volume.Name)
		}
	}
	factory := informers.NewSharedInformerFactory(client, resyncPeriod)
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    look,
		UpdateFunc: func(_, object any) { look(object) },
	}
	if _, err := factory.Core().V1().PersistentVolumes().Informer().AddEventHandler(handler); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	return nil
}

// offerAgain empties the volume before it drops the claim: the other way round the next claim could
// find what the last one wrote.
func offerAgain(ctx context.Context, client kubernetes.Interface, root string, volume *corev1.PersistentVolume) error {
	source := volume.Spec.HostPath
	if source == nil || !strings.HasPrefix(filepath.Clean(source.Path), filepath.Clean(root)+"/") {
		return nil
	}
	entries, err := os.ReadDir(source.Path)
	if err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(source.Path, entry.Name())); err != nil {
			return fmt.Errorf("empty volume: %w", err)
		}
	}
	changed := volume.DeepCopy()
	changed.Spec.ClaimRef = nil
	// The update carries the version that was seen: a volume that changed meanwhile is left alone.
	_, err = client.CoreV1().PersistentVolumes().Update(ctx, changed, metav1.UpdateOptions{})
	return err
}
