"""Words that made-up names, addresses and texts consist of; common ones, nobody's in particular."""

from __future__ import annotations

# Own lists and not a library's: the values are made in the server, where only plain lists can be used, and which value
# becomes which must not change with a library's release. For the same reason: never reorder, only make a new list.
FIRST_NAMES = (
    "Ada Albert Alice Amara Amir Andrea Anita Anton Arthur Astrid Ben Bianca Boris Bruno Carla Carmen Cecil Clara "
    "Conrad Cora Daniel Daria David Delia Diego Dora Edgar Edith Elena Elias Emil Emma Erik Esther Eva Fabian Felix "
    "Fiona Flora Frank Frida Gemma George Gina Greta Gustav Hana Hannah Hector Helen Henry Hugo Ida Ines Irene Isaac "
    "Iris Ivan Jacob Jana Jasper Joan Jonas Julia Karim Karl Kate Kira Lars Laura Leila Leon Lina Louis Lucia Magnus "
    "Malik Maria Mark Martha Max Mina Mira Nadia Nina Noah Nora Olga Oscar Otto Paula Pedro Petra Rafael Ravi Rita "
    "Rosa Ruth Samir Sara Simon Sofia Stella Theo Thomas Tina Ursula Vera Victor Walter Wanda Yara Yusuf Zora"
)
LAST_NAMES = (
    "Abbott Adler Amador Archer Arden Ashby Baker Barlow Becker Bell Benson Bergman Birch Blake Bolton Brandt Brook "
    "Burke Calder Carver Castell Chandler Clay Cole Cooper Crane Dahl Dalton Danner Decker Drake Dunn Eaton Elder "
    "Ellison Engel Fairley Falk Farmer Field Finch Fisher Fletcher Forster Fowler Frost Gardner Gibbs Glover Graham "
    "Grant Hale Harper Hart Hayes Heller Hill Holm Hooper Hunter Ingram Jansen Keller Kemp Kern Lake Lambert Lang "
    "Larkin Lindgren Linton Lowell Mercer Mills Moss Naylor Nolan Norris Oakley Olsen Palmer Parker Pease Pike Porter "
    "Potter Quinn Ramsey Reed Ridley Rivers Rowe Sawyer Shepherd Slater Sommer Stone Summers Tanner Thorne Tyler Vance "
    "Vogel Wagner Walker Ward Waters Weaver Webb West Wheeler Winter Wood Wright York"
)
CITIES = (
    "Ashford Birchwood Clearwater Cliffside Crossbridge Eastfield Elmhurst Fairhaven Foxhill Glenview Greenport "
    "Harborview Highgate Kingsmere Lakemont Longford Maplewood Middleham Northbrook Oakdale Pinecrest Riverton "
    "Rosedale Southgate Springvale Stonebridge Summerfield Westbury Whitestone Willowbrook"
)
WORDS = (
    "about after again almost along among apple around away basket before begin below beside better between bridge "
    "bright bring calm carry chair circle clear cloud colour common corner could cover dance day deep door down early "
    "earth east enough even every fair far field find first floor follow forest found fresh garden gentle give glass "
    "good grass great green ground half hand happy heavy high house idea inside island keep kind lake large later "
    "leave letter light line listen little long low make many meadow middle morning mountain move much music narrow "
    "near never new next north often old open other over paper part path place plain plant point quiet rain reach "
    "ready rest river road round sand sea season second seven short side silver simple slow small soft song soon "
    "sound south spring square start steady still stone story strong summer table take tall tell then thing three "
    "through time together town tree turn under until upon valley very voice walk warm water way week well west while "
    "white wide wind window winter with wood word work yellow young"
)
