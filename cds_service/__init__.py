"""A CDS Hooks server that reads FHIR R4; what it says about patients lies in the content folder."""
