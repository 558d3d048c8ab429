// Reads sequences of applies and updates with what gaia made of them (src/registry/apply/differential.rs), does the same with
// structured-merge-diff, which is what Kubernetes uses, and tells where the two differ: the object, who owns what, conflicts.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v4/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v4/merge"
	"sigs.k8s.io/structured-merge-diff/v4/typed"
)

const schema = `types:
- name: thing
  map:
    fields:
    - {name: spec, type: {namedType: spec}}
- name: spec
  map:
    fields:
    - {name: replicas, type: {scalar: numeric}}
    - {name: image, type: {scalar: string}}
    - {name: strategy, type: {namedType: strategy}}
    - {name: selector, type: {map: {elementType: {scalar: string}, elementRelationship: atomic}}}
    - {name: env, type: {map: {elementType: {scalar: string}}}}
    - {name: args, type: {list: {elementType: {scalar: string}, elementRelationship: atomic}}}
    - {name: hosts, type: {list: {elementType: {scalar: string}, elementRelationship: associative}}}
    - {name: ports, type: {list: {elementType: {namedType: port}, elementRelationship: associative, keys: [port, protocol]}}}
    - {name: free, type: {namedType: __untyped_deduced_}}
- name: strategy
  map:
    fields:
    - {name: type, type: {scalar: string}}
    - {name: surge, type: {scalar: numeric}}
    - {name: deep, type: {namedType: deep}}
- name: deep
  map:
    fields:
    - {name: a, type: {scalar: string}}
    - {name: b, type: {scalar: string}}
- name: port
  map:
    fields:
    - {name: port, type: {scalar: numeric}}
    - {name: protocol, type: {scalar: string}, default: TCP}
    - {name: name, type: {scalar: string}}
    - {name: options, type: {map: {elementType: {scalar: string}}}}
- name: __untyped_atomic_
  scalar: untyped
  list: {elementType: {namedType: __untyped_atomic_}, elementRelationship: atomic}
  map: {elementType: {namedType: __untyped_atomic_}, elementRelationship: atomic}
- name: __untyped_deduced_
  scalar: untyped
  list: {elementType: {namedType: __untyped_atomic_}, elementRelationship: atomic}
  map: {elementType: {namedType: __untyped_deduced_}, elementRelationship: separable}
`

type entry struct {
	Manager, Operation string
	FieldsV1           json.RawMessage
}

type step struct {
	Manager       string
	Force         bool
	Apply, Update interface{}
	Conflicts     [][2]string
	Spec          interface{}
	Managers      []entry
}

// One version only: nothing to convert.
type same struct{}

func (same) Convert(object *typed.TypedValue, _ fieldpath.APIVersion) (*typed.TypedValue, error) {
	return object, nil
}
func (same) IsMissingVersionError(error) bool { return false }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func object(parser typed.ParseableType, spec interface{}) *typed.TypedValue {
	made, err := parser.FromUnstructured(map[string]interface{}{"spec": spec})
	check(err)
	return made
}

// What the API server does to an object before it is stored: no nulls, and keys have their defaults.
func stored(value interface{}) interface{} {
	switch v := value.(type) {
	case map[string]interface{}:
		out := map[string]interface{}{}
		for name, below := range v {
			if below != nil {
				out[name] = stored(below)
			}
		}
		if _, isPort := out["port"]; isPort && out["protocol"] == nil {
			out["protocol"] = "TCP"
		}
		return out
	case []interface{}:
		out := []interface{}{}
		for _, below := range v {
			out = append(out, stored(below))
		}
		return out
	}
	return value
}

// The same value whatever the order of the lists that are sets.
func unordered(spec interface{}) interface{} {
	var copy map[string]interface{}
	text, _ := json.Marshal(spec)
	check(json.Unmarshal(text, &copy))
	for _, name := range []string{"hosts", "ports"} {
		if list, ok := copy[name].([]interface{}); ok {
			sort.Slice(list, func(i, j int) bool { return fmt.Sprint(list[i]) < fmt.Sprint(list[j]) })
		}
	}
	return copy
}

// Without containers that hold nothing.
func filled(value interface{}) interface{} {
	switch v := value.(type) {
	case map[string]interface{}:
		out := map[string]interface{}{}
		for name, below := range v {
			below = filled(below)
			if m, ok := below.(map[string]interface{}); ok && len(m) == 0 {
				continue
			}
			if l, ok := below.([]interface{}); ok && len(l) == 0 {
				continue
			}
			out[name] = below
		}
		return out
	case []interface{}:
		out := []interface{}{}
		for _, below := range v {
			out = append(out, filled(below))
		}
		return out
	}
	return value
}

func ours(step step) map[string]string {
	out := map[string]string{}
	for _, entry := range step.Managers {
		var fields map[string]interface{}
		check(json.Unmarshal(entry.FieldsV1, &fields))
		spec, ok := fields["f:spec"]
		if !ok {
			continue
		}
		text, _ := json.Marshal(map[string]interface{}{"f:spec": spec})
		set := fieldpath.NewSet()
		check(set.FromJSON(strings.NewReader(string(text))))
		out[entry.Manager+" "+entry.Operation] = set.String()
	}
	return out
}

func theirs(managers fieldpath.ManagedFields) map[string]string {
	out := map[string]string{}
	for name, set := range managers {
		if !set.Set().Empty() {
			out[name] = set.Set().String()
		}
	}
	return out
}

var quoted = regexp.MustCompile(`"([^"]*)"`)

func main() {
	parser, err := typed.NewParser(schema)
	check(err)
	thing := parser.Type("thing")
	updater := &merge.Updater{Converter: same{}}
	const version = fieldpath.APIVersion("test.dev/v1")
	sequences, steps, conflicted, orders, emptied, differ := 0, 0, 0, 0, 0, 0
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var sequence struct {
			Seed  int
			Steps []step
		}
		check(json.Unmarshal(lines.Bytes(), &sequence))
		sequences++
		now, err := thing.FromUnstructured(map[string]interface{}{})
		check(err)
		managers := fieldpath.ManagedFields{}
		for number, step := range sequence.Steps {
			steps++
			problem := ""
			// With whom, once for each field. Not where: this version gives one path for several (it does not copy them).
			var conflicts []string
			if step.Apply != nil {
				if whole, _ := now.AsValue().Unstructured().(map[string]interface{}); len(managers) == 0 && len(whole) > 0 {
					// As the API server does where nobody is recorded.
					empty, _ := thing.FromUnstructured(map[string]interface{}{})
					_, managers, err = updater.Update(empty, now, version, managers, "before-first-apply Update")
					check(err)
				}
				made, next, err := updater.Apply(now, object(thing, step.Apply), version, managers.Copy(), step.Manager+" Apply", step.Force)
				if found, ok := err.(merge.Conflicts); ok {
					for _, conflict := range found {
						name := strings.SplitN(conflict.Manager, " ", 2)[0]
						conflicts = append(conflicts, name)
					}
				} else {
					check(err)
					managers = next
					if made != nil {
						now = made
					}
				}
			} else {
				made, next, err := updater.Update(now, object(thing, step.Update), version, managers.Copy(), step.Manager+" Update")
				check(err)
				now, managers = made, next
			}
			var told []string
			for _, conflict := range step.Conflicts {
				told = append(told, quoted.FindStringSubmatch(conflict[0])[1])
			}
			sort.Strings(conflicts)
			sort.Strings(told)
			if len(conflicts) > 0 {
				conflicted++
			}
			whole, _ := now.AsValue().Unstructured().(map[string]interface{})
			spec := stored(whole["spec"])
			now = object(thing, spec)
			if _, stated := step.Spec.(map[string]interface{}); spec == nil && stated && len(filled(step.Spec).(map[string]interface{})) == 0 {
				emptied++
				break
			}
			if spec == nil {
				spec = map[string]interface{}{}
			}
			mine := step.Spec
			if mine == nil {
				mine = map[string]interface{}{}
			}
			if !reflect.DeepEqual(conflicts, told) {
				problem = fmt.Sprintf("conflicts\n  go   %q\n  gaia %q", conflicts, told)
			} else if !reflect.DeepEqual(unordered(spec), unordered(mine)) &&
				reflect.DeepEqual(unordered(filled(spec)), unordered(filled(mine))) {
				// What has lost all that was in it is null there, and empty here: src/registry/apply/prune.rs says why. From
				// here on there are two stories.
				emptied++
				break
			} else if !reflect.DeepEqual(unordered(spec), unordered(mine)) {
				go_, _ := json.Marshal(spec)
				gaia, _ := json.Marshal(mine)
				problem = fmt.Sprintf("object\n  go   %s\n  gaia %s", go_, gaia)
			} else if a, b := theirs(managers), ours(step); !reflect.DeepEqual(a, b) {
				for name := range a {
					if a[name] != b[name] {
						problem += fmt.Sprintf("fields of %s\n--- go\n%s\n--- gaia\n%s\n", name, a[name], b[name])
					}
				}
				for name := range b {
					if _, ok := a[name]; !ok {
						problem += fmt.Sprintf("fields of %s\n--- go: none\n--- gaia\n%s\n", name, b[name])
					}
				}
			} else {
				go_, _ := json.Marshal(spec)
				gaia, _ := json.Marshal(mine)
				if string(go_) != string(gaia) {
					orders++
					// Go on from ours, so that one difference is not counted again and again.
					now = object(thing, mine)
				}
			}
			if problem != "" {
				differ++
				if differ <= 5 {
					fmt.Printf("seed %d, step %d: %s\n", sequence.Seed, number, problem)
					wish, _ := json.Marshal(map[string]interface{}{"apply": step.Apply, "update": step.Update, "manager": step.Manager, "force": step.Force})
					fmt.Printf("  %s\n", wish)
				}
				break
			}
		}
	}
	fmt.Printf("%d sequences, %d steps, %d of them conflicts: %d sequences differ; %d end early at an emptied container; "+
		"lists in another order after %d steps\n", sequences, steps, conflicted, differ, emptied, orders)
	if differ > 0 {
		os.Exit(1)
	}
}
