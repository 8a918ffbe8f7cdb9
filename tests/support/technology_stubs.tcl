# Runs a project's build_prj.tcl with Catapult's commands replaced by ones that print their arguments.
# Usage: tclsh technology_stubs.tcl build_prj.tcl OPTION=VALUE ...
proc said {args} { puts "CALL [join $args]" }
foreach name {project options flow logfile} { proc $name args "said $name {*}\$args" }
proc go {state} { said go $state }
proc application args { return /mgc }
proc library args { return {} }
proc solution args {
  if {$args eq {get -name}} { return net }
  if {[lindex $args 0] eq "get"} { return {net block} }
  said solution {*}$args
}
proc directive args {
  if {[lindex $args 0] eq "get"} { return [list found:[lindex $args end]] }
  said directive {*}$args
}
rename source real_source
proc source {path} {
  if {[file exists $path]} { uplevel #0 [list real_source $path] } else { said source $path }
}
set argv0 [lindex $argv 0]
set argv [lrange $argv 1 end]
real_source $argv0
