"""Small valid files of formats that are read."""

import json

SECTIONS = {
    "BISPECTRUM": "type = Ta\ntwojmax = 6",
    "CALCULATOR": "calculator = LAMMPSSNAP",
    "PATH": "dataPath = JSON",
    "GROUPS": """
group_sections = name training_size testing_size eweight fweight vweight
group_types = str float float float float float
Liquid = 0.5 0.25 467 1 1.0E-8
""",
}


HEADER = """ vasp.6.4.2 20Jul23 complex
 POTCAR:    PAW_PBE Be 06Sep2000
 POTCAR:    PAW_PBE Be 06Sep2000
   ions per type =               2
   ISPIN  =      1    spin polarized calculation?
   NELM   =     60;   NELMIN=  2; NELMDL= -5     # of ELM steps
"""


STEP = """----------------------------------------- Iteration    {n}(  {iterations})  ------------------------------
{end}
  FORCE on cell =-STRESS in cart. coord.  units (eV):
  in kB     100.00000   200.00000   300.00000    40.00000    50.00000    60.00000
      direct lattice vectors                 reciprocal lattice vectors
     2.200000000  0.000000000  0.000000000     0.454545455  0.000000000  0.000000000
     0.100000000  3.300000000  0.000000000    -0.013774105  0.303030303  0.000000000
     0.000000000  0.200000000  3.500000000     0.000787092 -0.017316017  0.285714286

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      {z:.5f}         0.100000     -0.200000      0.300000
      1.10000      1.65000      1.75000        -0.100000      0.200000     -0.300000
 -----------------------------------------------------------------------------------
  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =        {energy:.8f} eV

  energy  without entropy=       -7.30000000  energy(sigma->0) =       -7.40000000

"""


REACHED = "------------------------ aborting loop because EDIFF is reached ------------------"


TIMES = """ General timing and accounting informations for this job:
                  Total CPU time used (sec):      {seconds:.3f}
                         Elapsed time (sec):      999.0
"""


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>
 <parameters></parameters>
 <atominfo><array name="atoms"><set><rc><c>Be</c><c>1</c></rc><rc><c>Be</c><c>1</c></rc></set></array></atominfo>
 <structure name="initialpos"><crystal><varray name="basis"><v>2.2 0 0</v><v>0.1 3.3 0</v><v>0 0.2 3.5</v></varray>
 </crystal><varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy">-7.5</i><i name="e_0_energy">-7.4</i></energy></scstep>
  <structure><crystal><varray name="basis"><v>2.2 0 0</v><v>0.1 3.3 0</v><v>0 0.2 3.5</v></varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
  <varray name="forces"><v>0.1 -0.2 0.3</v><v>-0.1 0.2 -0.3</v></varray>
  <varray name="stress"><v>100 40 60</v><v>40 200 50</v><v>60 50 300</v></varray>
  <energy><i name="e_fr_energy">-7.5</i><i name="e_wo_entrp">-7.3</i><i name="e_0_energy">-7.4</i></energy>
 </calculation>
</modeling>
"""


def outcar(energies=(-7.5,), seconds=30.0, iterations=12, end=REACHED):
    steps = [
        STEP.format(n=n + 1, iterations=iterations, end=end, energy=energy, z=0.01 * n)
        for n, energy in enumerate(energies)
    ]
    return HEADER + "".join(steps) + ("" if seconds is None else TIMES.format(seconds=seconds))


def fitsnap(energy=-10.0, comment="# a comment, with { in it\n", **changes):
    """A file of FitSNAP's with one compressed, sheared cell; dataset keys end in Style."""
    frame = {
        "NumAtoms": 2,
        "Lattice": [[2.2, 0.0, 0.0], [1.0, 3.3, 0.0], [0.0, 0.2, 3.5]],
        "Positions": [[0, 0, 0], [1.1, 1.65, 1.75]],
        "AtomTypes": ["W", "Be"],
        "Energy": energy,
        "Forces": [[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]],
        "Stress": [[1e5, 4e4, 6e4], [4e4, 2e5, 5e4], [6e4, 5e4, 3e5]],
        "Charge": 0.5,
    }
    styles = {key: value for key, value in changes.items() if key.endswith("Style")}
    frame.update({key: value for key, value in changes.items() if key not in styles})
    return comment + json.dumps({"Dataset": {"Data": [frame], "StressStyle": "bar", "Label": "test", **styles}})
