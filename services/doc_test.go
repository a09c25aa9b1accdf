package services_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestMapIsTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	drawn := readMap(file.Doc.Text())
	if len(drawn) == 0 {
		t.Fatal("doc.go has no map")
	}
	for _, r := range house {
		switch l, ok := drawn[r.path]; {
		case !ok:
			t.Errorf("%s is in the table and not in the map of doc.go", r.path)
		case l != r.layer:
			t.Errorf("%s is %s in the map of doc.go and %s in the table", r.path, l, r.layer)
		}
		delete(drawn, r.path)
	}
	for path := range drawn {
		t.Errorf("%s is in the map of doc.go and not in the table", path)
	}
}

// readMap reads the tree that a package comment draws: indented lines, each
// with a directory and a slash, and a layer if the directory is a room.
func readMap(doc string) map[string]layer {
	type step struct {
		indent int
		path   string
	}
	var above []step
	rooms := make(map[string]layer)
	for line := range strings.Lines(doc) {
		tree, ok := strings.CutPrefix(line, "\t")
		words := strings.Fields(tree)
		if !ok || len(words) == 0 {
			continue
		}
		name, ok := strings.CutSuffix(words[0], "/")
		if !ok {
			continue
		}
		indent := len(tree) - len(strings.TrimLeft(tree, " "))
		for len(above) > 0 && above[len(above)-1].indent >= indent {
			above = above[:len(above)-1]
		}
		path := name
		if len(above) > 0 {
			path = above[len(above)-1].path + "/" + name
		}
		above = append(above, step{indent, path})
		if len(words) > 1 && rank[layer(words[1])] > 0 {
			rooms[path] = layer(words[1])
		}
	}
	return rooms
}

func TestReadMap(t *testing.T) {
	const doc = "Package x has a map:\n\n" +
		"\thouse/        page  words\n" +
		"\t  internal/         words\n" +
		"\t    a/        core  words,\n" +
		"\t                    and more\n" +
		"\t      b/      core\n" +
		"\t  c/          main  words\n" +
		"\tyard/\n" +
		"\t  d/          core  words\n"
	want := map[string]layer{
		"house": page, "house/internal/a": core, "house/internal/a/b": core, "house/c": command, "yard/d": core,
	}
	if got := readMap(doc); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A pkg is what the rules ask of a package. Its path is relative to the module;
// those that it imports are as its files write them.
type pkg struct {
	path        string
	documented  bool
	imports     []string // sorted, each once
	testImports []string // of its test files, external ones included
}

// readModule reads every package of the module at root. It parses the files
// itself instead of asking go list: so files for another system count as well,
// and so go test knows what this test has read, and does not answer from its
// cache after a change.
func readModule(t *testing.T, root string) []pkg {
	t.Helper()
	var pkgs []pkg
	err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if dir != root {
			if name := d.Name(); name[0] == '.' || name[0] == '_' || name == "testdata" {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				return fs.SkipDir
			}
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		p, found := readPackage(t, dir, filepath.ToSlash(rel))
		if found {
			pkgs = append(pkgs, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

// readPackage reads the package in a directory, if there is one.
func readPackage(t *testing.T, dir, path string) (p pkg, found bool) {
	t.Helper()
	p.path = path
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	onlyTests := !slices.ContainsFunc(names, func(name string) bool { return !isTest(name) })
	for _, name := range names {
		if base := filepath.Base(name); base[0] == '.' || base[0] == '_' {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		found = true
		if isTest(name) {
			p.testImports = append(p.testImports, imports(t, file)...)
		} else {
			p.imports = append(p.imports, imports(t, file)...)
		}
		if onlyTests || !isTest(name) {
			p.documented = p.documented || strings.TrimSpace(file.Doc.Text()) != ""
		}
	}
	slices.Sort(p.imports)
	slices.Sort(p.testImports)
	p.imports, p.testImports = slices.Compact(p.imports), slices.Compact(p.testImports)
	return p, found
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

func imports(t *testing.T, file *ast.File) []string {
	t.Helper()
	var paths []string
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func TestReadModule(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"a/a.go":          "// Package a is told.\npackage a\nimport \"os\"\n",
		"a/a_plan9.go":    "//go:build plan9\n\npackage a\nimport alias \"net\"\n",
		"a/in_test.go":    "package a\nimport \"os\"\n",
		"a/out_test.go":   "package a_test\nimport . \"x.org/y\"\n",
		"a/b/b.go":        "//go:build linux\n\npackage b\n",
		"a/b/b_test.go":   "// Package b is told in its test only.\npackage b\n",
		"c/c_test.go":     "// Package c has tests only.\npackage c_test\n",
		"d/text.txt":      "no package",
		"e/testdata/e.go": "package e\n",
		".f/f.go":         "package f\n",
		"_g/g.go":         "package g\n",
		"h/go.mod":        "module h\n",
		"h/h.go":          "package h\n",
	} {
		name = filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := readModule(t, root)
	want := []pkg{
		{path: "a", documented: true, imports: []string{"net", "os"}, testImports: []string{"os", "x.org/y"}},
		{path: "a/b"},
		{path: "c", documented: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
